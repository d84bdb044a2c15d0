// The commonest exits, answered without leaving the backend: they concern the vCPU's general registers and
// nothing else, or a chip. A backend that has seen one by its vendor's own exit code asks here and enters the
// guest again at once, with nothing decoded, dispatched or looked for in between. What is answered here is
// answered as Vcpu::dispatch() would; whatever is out of the ordinary is not answered, and goes that way.
//
// No look at what others want of the vCPU is needed before such an entry: they kick its core after having
// stored it, and that ends the entry at once (Vcpu::run()). What an answer itself may have caused makes it
// Answer::look.
#pragma once

#include "vmm/control_registers.hpp"
#include "vmm/cpuid_policy.hpp"
#include "vmm/decode/emulator.hpp"
#include "vmm/exit.hpp"
#include "vmm/exit_statistics.hpp"
#include "vmm/instruction_cache.hpp"
#include "vmm/msr_policy.hpp"

namespace bulkhead {

class VirtualMachine;

class QuickExits {
  public:
    // no: nothing was done. look: done, and before the next entry Vcpu::run() has to look at everything.
    enum class Answer : u8 { no, done, look };

    QuickExits(VirtualMachine& vm, unsigned vcpu, const MsrContext& msrs)
        : vm_(vm), vcpu_(vcpu), msrs_(msrs) {}

    // The result of CPUID; null: it is not to be had here.
    [[nodiscard]] const CpuidResult* cpuid(const GeneralRegisters& registers) const {
        return msrs_.cpuid.constant(static_cast<u32>(registers.rax));
    }
    static void store(GeneralRegisters& registers, const CpuidResult& result) {
        registers.rax = result.eax;
        registers.rbx = result.ebx;
        registers.rcx = result.ecx;
        registers.rdx = result.edx;
    }

    // RDMSR of ECX. Nothing is changed where there is no result.
    [[nodiscard]] bool read_msr(u32 index, u64& value) {
        // Reading these may change what the local APIC has to deliver.
        if (reaches_apic(MsrIndex(index))) return false;
        const auto result = msr_value(MsrIndex(index), msrs_);
        if (result) value = *result;
        return result.has_value();
    }
    [[nodiscard]] static constexpr bool reaches_apic(MsrIndex index) {
        return (index >= msr::x2apic_first && index <= msr::x2apic_last) || index == msr::tsc_deadline;
    }

    // WRMSR. no: refused, or what it changes is more than this; nothing is changed.
    [[nodiscard]] Answer write_msr(u32 index, u64 value);

    [[nodiscard]] bool allows_xcr0(u32 index, u64 value, u64 cr4, unsigned cpl) const {
        return check_xsetbv(msrs_.cpuid, {.cr4 = cr4, .cpl = static_cast<u8>(cpl)}, index, value).has_value();
    }

    // A move between a general register and a device, by an instruction that was decoded before: the
    // instruction and the address; null: the general way.
    [[nodiscard]] const Instruction* device_move(const CodePlace& place, unsigned cpl,
                                                 const KnownTranslation& known,
                                                 const GeneralRegisters& registers,
                                                 GuestPhysical& address) const {
        const auto* kept = instructions.find(place);
        if (kept == nullptr || !known_move_address(kept->instruction, registers, cpl, known, address))
            return nullptr;
        return is_ram(address) ? nullptr : &kept->instruction;
    }
    // Makes it; the instruction has been completed.
    [[nodiscard]] Answer move(const Instruction& instruction, GuestPhysical address,
                              GeneralRegisters& registers);

    // What RAX is after a hypercall by the kernel: none is offered.
    [[nodiscard]] static constexpr u64 hypercall(bool in_64_bit_code) {
        constexpr i64 no_such_call = -38;
        return in_64_bit_code ? static_cast<u64>(no_such_call) : static_cast<u32>(no_such_call);
    }

    // IN or OUT. look or done. The instruction's end is the caller's.
    [[nodiscard]] Answer port(const PortAccess& access, GeneralRegisters& registers);

    // REP INSB, OUTSB and the wider ones, of at most 64 bytes that lie in one page of RAM, in 64-bit code and
    // a segment whose base is 0: the translated page's bytes; null: the general way.
    struct Paging {
        u64 cr3 = 0, cr4 = 0, efer = 0;
        unsigned cpl = 0;
    };
    [[nodiscard]] u8* string_bytes(const PortAccess& access, const Paging& paging, u64 flags,
                                   const GeneralRegisters& registers);
    // Moves them; the instruction has been completed. look or done.
    [[nodiscard]] Answer string(const PortAccess& access, u8* bytes, GeneralRegisters& registers);

    // Without the hardware's help the guest changes its task priority, by CR8, in the backend alone: this
    // tells the local APIC, before anything is decided by it.
    void read_task_priority();

    // The instruction there if it has been decoded before and is still the same; else null.
    [[nodiscard]] const Instruction* instruction_at(const CodePlace& place) const {
        const auto* known = instructions.find(place);
        return known != nullptr ? &known->instruction : nullptr;
    }
    // Its length; 0 where there is none.
    [[nodiscard]] unsigned length_at(const CodePlace& place) const {
        const Instruction* instruction = instruction_at(place);
        return instruction != nullptr ? instruction->length : 0;
    }

    InstructionCache instructions{};
    ExitAccount account{};
    // The physical TSC from which on Vcpu::run() has to look, however many exits are answered.
    u64 turn_end = ~u64{0};
    // The chips' deadline as Vcpu::run() last saw it.
    Ticks device_deadline = 0;
    // Likewise the local APIC's timer's.
    Ticks apic_deadline = 0;
    // The local APIC's registers changed in software, or what holds an event up did: Vcpu::run() has to look.
    bool apic_touched = true;

  private:
    static constexpr u64 most_string_bytes = 64;

    [[nodiscard]] u8* ram_at(u64 linear, bool write, const Paging& paging);
    [[nodiscard]] bool is_ram(GuestPhysical address) const;
    [[nodiscard]] bool is_quiet() const;
    [[nodiscard]] Answer after_apic();
    VirtualMachine& vm_;
    unsigned vcpu_;
    MsrContext msrs_;
};

}  // namespace bulkhead
