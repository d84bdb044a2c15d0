// Single instructions by name.
#pragma once

#include <optional>

#include "arch/x86/regs/cpuid.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead::cpu {

// ---- Identification and model-specific registers
// -----------------------------------------------------------

[[nodiscard]] inline CpuidResult cpuid(u32 leaf, u32 subleaf = 0) {
    CpuidResult r;
    asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}

// #GP, and with it a panic, if the register does not exist.
[[nodiscard]] inline u64 read_msr(MsrIndex index) {
    u32 low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index.raw()));
    return u64{high} << 32 | low;
}

inline void write_msr(MsrIndex index, u64 value) {
    asm volatile("wrmsr"
                 :
                 : "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32)), "c"(index.raw())
                 : "memory");
}

// An instruction between labels 1 and 2 that may fault: on #GP, #UD or #PF execution goes on at label 2, with
// `fault` still 1.
#define BULKHEAD_GUARDED(instruction) \
    "movl $1, %[fault]\n\t"           \
    "1: " instruction                 \
    "\n\t"                            \
    "xorl %[fault], %[fault]\n\t"     \
    "2:\n\t"                          \
    ".pushsection .fixups, \"a\"\n\t" \
    ".balign 8\n\t"                   \
    ".quad 1b, 2b\n\t"                \
    ".popsection\n\t"

// Nothing where the register does not exist.
[[nodiscard]] inline std::optional<u64> read_msr_safe(MsrIndex index) {
    u32 low = 0, high = 0, fault;
    asm volatile(BULKHEAD_GUARDED("rdmsr")
                 : "+a"(low), "+d"(high), [fault] "=&r"(fault)
                 : "c"(index.raw())
                 : "cc");
    if (fault != 0) return std::nullopt;
    return u64{high} << 32 | low;
}

// False where the register does not exist or does not take the value.
[[nodiscard]] inline bool write_msr_safe(MsrIndex index, u64 value) {
    u32 fault;
    asm volatile(BULKHEAD_GUARDED("wrmsr")
                 : [fault] "=&r"(fault)
                 : "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32)), "c"(index.raw())
                 : "memory", "cc");
    return fault == 0;
}

// ---- Control and debug registers
// ---------------------------------------------------------------------------

#define BULKHEAD_CONTROL_REGISTER(name)                                 \
    [[nodiscard]] inline u64 read_##name() {                            \
        u64 value;                                                      \
        asm volatile("mov %%" #name ", %0" : "=r"(value) : : "memory"); \
        return value;                                                   \
    }                                                                   \
    inline void write_##name(u64 value) {                               \
        asm volatile("mov %0, %%" #name : : "r"(value) : "memory");     \
    }

BULKHEAD_CONTROL_REGISTER(cr0)
BULKHEAD_CONTROL_REGISTER(cr2)
BULKHEAD_CONTROL_REGISTER(cr3)
BULKHEAD_CONTROL_REGISTER(cr4)
BULKHEAD_CONTROL_REGISTER(cr8)
BULKHEAD_CONTROL_REGISTER(dr0)
BULKHEAD_CONTROL_REGISTER(dr1)
BULKHEAD_CONTROL_REGISTER(dr2)
BULKHEAD_CONTROL_REGISTER(dr3)
BULKHEAD_CONTROL_REGISTER(dr6)
BULKHEAD_CONTROL_REGISTER(dr7)
#undef BULKHEAD_CONTROL_REGISTER

// ---- Memory that may not be there
// ---------------------------------------------------------------------------

// Whether a load of the byte at `address` takes a page fault, at that very address, in the current address
// space. For self-tests of what must not be mapped. Not for device registers, which may do something when
// they are read. CR2, which may hold a guest's value, is kept.
[[nodiscard]] inline bool page_faults(HostVirtual address) {
    const u64 kept = read_cr2();
    write_cr2(~address.raw());  // nothing but a page fault makes it `address`
    u32 fault;
    u8 byte;
    asm volatile(BULKHEAD_GUARDED("movb (%[address]), %[byte]")
                 : [fault] "=&r"(fault), [byte] "=&q"(byte)
                 : [address] "r"(address.raw())
                 : "memory", "cc");
    const bool here = read_cr2() == address.raw();
    write_cr2(kept);
    return fault != 0 && here;
}

[[nodiscard]] inline u64 read_xcr0() {
    u32 low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return u64{high} << 32 | low;
}
inline void write_xcr0(u64 value) {
    asm volatile("xsetbv"
                 :
                 : "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32)), "c"(0)
                 : "memory");
}

[[nodiscard]] inline u64 read_rflags() {
    u64 value;
    asm volatile("pushfq; popq %0" : "=r"(value));
    return value;
}

// ---- Descriptor tables
// -------------------------------------------------------------------------------------

struct [[gnu::packed]] TableRegister {
    u16 limit = 0;
    u64 base = 0;
};

inline void load_gdt(const TableRegister& table) {
    asm volatile("lgdt %0" : : "m"(table));
}
inline void load_idt(const TableRegister& table) {
    asm volatile("lidt %0" : : "m"(table));
}
inline void load_ldt(u16 selector) {
    asm volatile("lldt %0" : : "r"(selector));
}
inline void load_task_register(u16 selector) {
    asm volatile("ltr %0" : : "r"(selector) : "memory");
}
[[nodiscard]] inline TableRegister read_gdt() {
    TableRegister table;
    asm volatile("sgdt %0" : "=m"(table));
    return table;
}
[[nodiscard]] inline TableRegister read_idt() {
    TableRegister table;
    asm volatile("sidt %0" : "=m"(table));
    return table;
}

// ---- Port I/O
// ----------------------------------------------------------------------------------------------

[[nodiscard]] inline u8 in8(Port port) {
    u8 value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port.raw()));
    return value;
}
[[nodiscard]] inline u16 in16(Port port) {
    u16 value;
    asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port.raw()));
    return value;
}
[[nodiscard]] inline u32 in32(Port port) {
    u32 value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port.raw()));
    return value;
}
inline void out8(Port port, u8 value) {
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port.raw()));
}
inline void out16(Port port, u16 value) {
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port.raw()));
}
inline void out32(Port port, u32 value) {
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port.raw()));
}

// ---- The rest
// ----------------------------------------------------------------------------------------------

// Not ordered with the instructions around it.
[[nodiscard]] inline u64 read_tsc() {
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return u64{high} << 32 | low;
}
// After all earlier loads have completed (Intel SDM Vol. 2B, RDTSC; AMD: LFENCE is made serialising by every
// system that knows of speculation, and is ordered enough for timing where it is not).
[[nodiscard]] inline u64 read_tsc_ordered() {
    u32 low, high;
    asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return u64{high} << 32 | low;
}

inline void invalidate_page(HostVirtual address) {
    asm volatile("invlpg (%0)" : : "r"(address.raw()) : "memory");
}
// Writes back and discards all caches.
inline void write_back_caches() {
    asm volatile("wbinvd" : : : "memory");
}

inline void pause() {
    asm volatile("pause" : : : "memory");
}
inline void halt() {
    asm volatile("hlt" : : : "memory");
}
inline void disable_interrupts() {
    asm volatile("cli" : : : "memory");
}
inline void enable_interrupts() {
    asm volatile("sti" : : : "memory");
}
// Enables interrupts and halts, with no instruction boundary between at which an interrupt could be lost.
// Takes what interrupts are pending. STI lets one more instruction pass before it does; that is a NOP and not
// a PAUSE, since QEMU's TCG goes from a PAUSE behind STI to the CLI without looking.
inline void take_interrupts() {
    asm volatile("sti; nop; cli" : : : "memory");
}
inline void enable_interrupts_and_halt() {
    asm volatile("sti; hlt" : : : "memory");
}
[[nodiscard]] inline bool interrupts_enabled() {
    return (read_rflags() & 1u << 9) != 0;
}

[[noreturn]] inline void stop() {
    for (;;) asm volatile("cli; hlt" : : : "memory");
}

// Disables interrupts for a scope and restores what was.
class InterruptGuard {
  public:
    InterruptGuard() : enabled_(interrupts_enabled()) { disable_interrupts(); }
    ~InterruptGuard() {
        if (enabled_) enable_interrupts();
    }
    InterruptGuard(const InterruptGuard&) = delete;
    InterruptGuard& operator=(const InterruptGuard&) = delete;

  private:
    bool enabled_;
};

// Volatile accesses to device registers, of exactly the given width.
template <class T>
[[nodiscard]] inline T mmio_read(HostVirtual address) {
    return *reinterpret_cast<volatile T*>(address.raw());
}
template <class T>
inline void mmio_write(HostVirtual address, T value) {
    *reinterpret_cast<volatile T*>(address.raw()) = value;
}

}  // namespace bulkhead::cpu
