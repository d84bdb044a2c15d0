// What the C++ guests share: text on COM1, the command line, port and register access, and a way to run a few
// bytes of code in any mode and see exactly what became of them.
#pragma once

#include <initializer_list>

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned;
using u64 = unsigned long;
using i64 = long;
using usize = unsigned long;

constexpr u64 bit(unsigned n) {
    return u64{1} << n;
}
constexpr u64 low_bits(unsigned n) {
    return n >= 64 ? ~u64{0} : bit(n) - 1;
}

void* operator new(usize, void* place) noexcept;
extern "C" void* memset(void* to, int value, usize count);
extern "C" void* memcpy(void* to, const void* from, usize count);
extern "C" int memcmp(const void* a, const void* b, usize count);

// --- The processor ---------------------------------------------------------------------------------------

inline void out8(u16 port, u8 value) {
    asm volatile("outb %0, %1" ::"a"(value), "Nd"(port) : "memory");
}
inline void out16(u16 port, u16 value) {
    asm volatile("outw %0, %1" ::"a"(value), "Nd"(port) : "memory");
}
inline void out32(u16 port, u32 value) {
    asm volatile("outl %0, %1" ::"a"(value), "Nd"(port) : "memory");
}
inline u8 in8(u16 port) {
    u8 value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
inline u16 in16(u16 port) {
    u16 value;
    asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
inline u32 in32(u16 port) {
    u32 value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
inline u64 rdtsc() {
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return u64{high} << 32 | low;
}
inline u64 rdmsr(u32 index) {
    u32 low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return u64{high} << 32 | low;
}
inline void wrmsr(u32 index, u64 value) {
    asm volatile("wrmsr" ::"c"(index), "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32))
                 : "memory");
}
struct CpuidResult {
    u32 eax, ebx, ecx, edx;
};
inline CpuidResult cpuid(u32 leaf, u32 subleaf = 0) {
    CpuidResult r;
    asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}
#define CONTROL_REGISTER(name)                                       \
    inline u64 read_##name() {                                       \
        u64 value;                                                   \
        asm volatile("mov %%" #name ", %0" : "=r"(value)::"memory"); \
        return value;                                                \
    }                                                                \
    inline void write_##name(u64 value) {                            \
        asm volatile("mov %0, %%" #name ::"r"(value) : "memory");    \
    }
CONTROL_REGISTER(cr0)
CONTROL_REGISTER(cr2)
CONTROL_REGISTER(cr3)
CONTROL_REGISTER(cr4)
CONTROL_REGISTER(cr8)
CONTROL_REGISTER(dr0)
CONTROL_REGISTER(dr1)
CONTROL_REGISTER(dr2)
CONTROL_REGISTER(dr3)
CONTROL_REGISTER(dr6)
CONTROL_REGISTER(dr7)
#undef CONTROL_REGISTER
inline void pause() {
    asm volatile("pause" ::: "memory");
}
template <class T>
inline T load(u64 address) {
    return *reinterpret_cast<const volatile T*>(address);
}
template <class T>
inline void store(u64 address, T value) {
    *reinterpret_cast<volatile T*>(address) = value;
}

// --- Text ------------------------------------------------------------------------------------------------

struct Hex {
    u64 value;
    unsigned digits = 0;  // at least
};

// A line of text; what does not fit is lost.
class Text {
  public:
    Text() = default;
    Text(const char* text) { *this << text; }
    Text& operator<<(const char* text);
    Text& operator<<(char character);
    Text& operator<<(Hex number);
    Text& operator<<(u64 number);
    Text& operator<<(u32 number) { return *this << u64{number}; }
    Text& operator<<(int number) { return *this << static_cast<u64>(number); }
    [[nodiscard]] const char* c_str() const { return text_; }
    [[nodiscard]] bool empty() const { return used_ == 0; }

  private:
    char text_[200] = {};
    usize used_ = 0;
};

void print(const char* text);  // to COM1
inline void print(const Text& text) {
    print(text.c_str());
}
// A key that was typed, or -1.
int read_key();

// --- The start -------------------------------------------------------------------------------------------

// Registers at the entry, in the order in which boot.asm stores them.
struct BootState {
    u64 eax, ebx, ecx, edx, esi, edi, ebp, esp, eflags, cr0, cr2, cr3, cr4;
};
extern "C" BootState boot_state;

// The value of "name=value" on the command line, or null; and as a number.
const char* option(const char* name);
u64 option(const char* name, u64 otherwise);
bool is_option(const char* name, const char* value);
// The end of RAM below 4 GiB, as the boot loader says.
u64 end_of_ram();

// The TSC's ticks in a microsecond, measured against the PIT once.
u64 ticks_per_microsecond();

// --- Probed code -----------------------------------------------------------------------------------------

// General registers as numbered by the encodings.
enum : unsigned { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };

struct Entry {
    u64 gpr[16] = {};
    u64 rflags = 2;
    u64 rip = 0;
    u64 cs = 0x08;
    u64 ss = 0x10;
    u64 ds = 0x10;
};

struct Outcome {
    u64 gpr[16];
    u64 rflags, rip, cs, ss, ds;
    u64 vector, error, cr2, dr6;
};
extern "C" Outcome outcome;
extern "C" u8 run_active;
// Sees every event before it ends the probed code; true: the code goes on (with `outcome`'s RAX, RCX, RDX,
// RSI, RDI and R8 to R11).
extern "C" bool (*event_hook)();
// NMIs that strike this program itself, not what it probes, are ignored.
extern "C" u8 ignores_stray_nmi;
extern "C" void run_probed(const Entry* entry);
extern "C" void reload_segments();
extern "C" u64 gdt[];
extern "C" u8 idt[];
extern "C" u8 task_state[];
extern "C" u64 page_directories[];
extern "C" u8 image_end[], image_begin[];

constexpr u64 rflags_tf = bit(8), rflags_if = bit(9), rflags_df = bit(10), rflags_ac = bit(18);

enum class Mode : u8 { long0, long3, compat0, compat3, compat16 };

// Up to 40 bytes of code.
struct Code {
    template <class... Bytes>
    requires((sizeof(Bytes) <= 4) && ...) constexpr Code(Bytes... list)
        : size(sizeof...(list)), bytes{static_cast<u8>(list)...} {}
    constexpr Code operator+(const Code& other) const {
        Code both = *this;
        for (usize i = 0; i < other.size; ++i) both.bytes[both.size++] = other.bytes[i];
        return both;
    }
    usize size;
    u8 bytes[40];
};

// Pages for probes, each of 4 KiB, at virtual addresses that are below 4 GiB in a 2 MiB region of their own.
constexpr u64 window = 0x70000000;
constexpr u64 code_at = window;                 // the code, for ring 0
constexpr u64 user_code_at = window + 0x2000;   // the same bytes, for ring 3; a hole follows each
constexpr u64 data_at = window + 0x10000;       // two pages of RAM, then a hole
constexpr u64 user_data_at = window + 0x20000;  // the same two pages for ring 3, then a hole
constexpr u64 device_at = window + 0x40000;     // for map_page()
constexpr u64 stack_at = window + 0x80000;      // a page of stack for ring 0; what it points at is its end
constexpr u64 user_stack_at = window + 0x90000;

enum : u64 { page_present = 1, page_writable = 2, page_user = 4, page_uncached = 0x18 };
// Maps a page of the window.
void map_page(u64 virtual_address, u64 physical, u64 flags);
void unmap_page(u64 virtual_address);
// The RAM behind data_at and user_data_at, 8 KiB.
u8* data_pages();
// The RAM behind code_at.
u8* code_page();
void prepare_window();

// Runs `code`, followed by INT3, in the mode. RSP is a stack of its own unless `in` has one.
const Outcome& run(const Code& code, Mode mode = Mode::long0, const Entry& in = {});
// Where its first byte was.
u64 begin_of(Mode mode);

// True: nothing struck, the code ran to its end.
bool completed(const Code& code, Mode mode = Mode::long0);

// Reads an MSR; false: it faulted.
bool try_rdmsr(u32 index, u64& value);
// Writes one; the vector that struck, or -1.
int try_wrmsr(u32 index, u64 value);
