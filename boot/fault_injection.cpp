#include "boot/fault_injection.hpp"

#ifdef BULKHEAD_FAULT_INJECTION

#include <atomic>

#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/machine_check.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "boot/cores.hpp"
#include "boot/kernel_space.hpp"
#include "drivers/vectors.hpp"

namespace bulkhead {
namespace {

using namespace machine_check;

constexpr Vector nobodys_vector{0x61};
bool announced = false;

void access(u64 address) {
    *reinterpret_cast<volatile u8*>(address) = 0;
}

// Deeper than any stack. Not a tail call: something is left to do behind it.
[[gnu::noinline]] u64 recurse(u64 depth) {
    volatile u8 frame[512];
    frame[depth % sizeof frame] = static_cast<u8>(depth);
    return depth == 0 ? 0 : recurse(depth - 1) + frame[depth % sizeof frame];
}

void raise_machine_check(HostPhysical page) {
    constexpr u64 physical_address = 2 << 6, page_granularity = 12;
    injected_bank = {.status = valid | uncorrected | enabled | address_valid | misc_valid | signalled,
                     .address = page.raw(),
                     .misc = physical_address | page_granularity};
    asm volatile("int $18" : : : "memory");
}

// A page amid the memory of the last VM that has any.
[[nodiscard]] HostPhysical page_of_vm(const Management& vms) {
    HostPhysical page(0);
    VmMemorySummary memory;
    for (u16 vm = 0; vms.vm_memory(VmId(vm), memory); ++vm) {
        if (memory.ranges.size() > 1) page = memory.ranges[1].start + 16 * page_size;
    }
    return page;
}

// Until when a core is to hang: a TSC.
std::atomic<u64> hang_until[max_cpus];

void hang(unsigned core, u64 until) {
    hang_until[core].store(until);
    kick_core(core);
}

void strike(Fault fault, Host& host, const Management& vms) {
    switch (fault) {
        case Fault::unexpected_interrupt:
            (void)host.local_apic.send(host.local_apic.id(), nobodys_vector);
            break;
        // Like a real one, it is not in service.
        case Fault::spurious_interrupt: asm volatile("int %0" : : "i"(host_vector::spurious.raw())); break;
        case Fault::nmi: (void)host.local_apic.send_nmi(host.local_apic.id()); break;
        case Fault::corrected_machine_check: injected_bank = {.status = valid | enabled}; break;
        case Fault::memory_of_vm: raise_machine_check(page_of_vm(vms)); break;
        case Fault::interrupt_storm:
            // Whenever the second that is counted in began: half of them are more than it may have.
            for (u32 i = 0; i < 2 * (StormGuard::most_in_a_second + 1); ++i)
                asm volatile("int %0" : : "i"(host_vector::console_uart.raw()) : "memory");
            break;
        case Fault::core_silent: hang(1, cpu::read_tsc() + 3 * host.tsc.hz); break;
        case Fault::core_lost: hang(2, ~u64{0}); break;
        case Fault::first_core_silent:
            for (;;) cpu::pause();
        case Fault::general_protection: access(bit(63)); break;  // not canonical
        case Fault::page_fault: access(page_size); break;        // nothing is mapped low
        case Fault::invalid_opcode: asm volatile("ud2"); break;
        case Fault::indirect_branch:  // to no ENDBR64; nothing happens where branches are not tracked
            asm volatile("leaq 1f(%%rip), %%rax; jmp *%%rax; 1:" : : : "rax", "memory");
            break;
        case Fault::return_address:  // overwritten; nothing happens where there are no shadow stacks
            asm volatile("leaq 2f(%%rip), %%rax; call 1f; 1: movq %%rax, (%%rsp); ret; 2:"
                         :
                         :
                         : "rax", "memory");
            break;
        // The page fault's frame cannot be pushed, either.
        case Fault::double_fault: asm volatile("movl $0x1800, %%esp; push %%rax" : : : "memory"); break;
        case Fault::stack_overflow: (void)recurse(100'000); break;
        case Fault::assertion: BULKHEAD_ASSERT(host.tsc.hz == 0); break;
        case Fault::machine_check: raise_machine_check(image_begin()); break;
        default: break;
    }
}

}  // namespace

[[gnu::noinline]] void hang_if_told(unsigned core) {
    const u64 until = hang_until[core].exchange(0);
    while (cpu::read_tsc() < until) cpu::pause();
}

void fail_allocations(VmManager& manager) {
    static AllocationFault fault{.fail_at = 0, .goes_on = true};
    if (injected(Fault::allocation)) manager.set_fault(&fault);
}

void inject_next_fault(Host& host, const Management& vms) {
    for (auto i = static_cast<u8>(Fault::unexpected_interrupt); i < static_cast<u8>(Fault::count); ++i) {
        const auto fault = static_cast<Fault>(i);
        if (!injected_faults.has(fault)) continue;
        // There is one bank to inject into: the error before has to be found first.
        if (injected_bank.status != 0) return;
        // Announced in one turn, done in the next: the line is out by then.
        announced = !announced;
        if (announced) return host.log.warning("injecting: {}", name_of(fault));
        (void)injected_faults.take(fault);
        return strike(fault, host, vms);
    }
}

}  // namespace bulkhead

#endif
