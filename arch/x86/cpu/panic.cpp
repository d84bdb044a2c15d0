#include "arch/x86/cpu/panic.hpp"

#include <atomic>

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/machine_check.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "arch/x86/cpu/stacks.hpp"

extern "C" const bulkhead::u8 text_start[];
extern "C" const bulkhead::u8 text_end[];

namespace bulkhead {

PanicSettings panic_settings;

namespace {

constexpr u32 nobody = ~u32{0};
std::atomic<u32> panicking_cpu{nobody};
std::atomic<bool> told_of_second{false};

// Where a core was when it froze.
struct Frozen {
    std::atomic<bool> valid{false};
    u64 rip = 0, rbp = 0, rsp = 0;
};
PerCpu<Frozen> frozen;

// Sinks get whole lines: one call of print() may reach them in many pieces.
class Lines {
  public:
    template <class... Arguments>
    void operator()(FormatString<std::type_identity_t<Arguments>...> format, const Arguments&... arguments) {
        if (panic_settings.output == nullptr) return;
        FixedString<160> line;
        print(line, format, arguments...);
        panic_settings.output->write(line.view());
        panic_settings.output->write("\n");
    }
};

[[nodiscard]] std::string_view exception_name(u64 vector) {
    static constexpr std::string_view names[] = {"#DE divide error",
                                                 "#DB debug",
                                                 "NMI",
                                                 "#BP breakpoint",
                                                 "#OF overflow",
                                                 "#BR bound range",
                                                 "#UD invalid opcode",
                                                 "#NM device not available",
                                                 "#DF double fault",
                                                 "vector 9",
                                                 "#TS invalid TSS",
                                                 "#NP segment not present",
                                                 "#SS stack fault",
                                                 "#GP general protection",
                                                 "#PF page fault",
                                                 "vector 15",
                                                 "#MF x87 error",
                                                 "#AC alignment check",
                                                 "#MC machine check",
                                                 "#XM SIMD error",
                                                 "#VE virtualisation",
                                                 "#CP control protection"};
    return vector < std::size(names) ? names[vector] : std::string_view("exception");
}

// The current core's number, for printing only: GS may not be set up yet, or be what went wrong.
[[nodiscard]] u32 cpu_by_stack(u64 stack_pointer) {
    const auto place = find_stack(stack_pointer);
    return place ? place->cpu : 0;
}

[[nodiscard]] u64 stack_pointer() {
    return reinterpret_cast<u64>(__builtin_frame_address(0));
}

// Only the first core to panic prints; a second panic of the same core says one line and stops. A third comes
// of that line: a core that is being started may not reach the screen yet.
void enter_panic(u32 cpu) {
    cpu::disable_interrupts();
    u32 expected = nobody;
    if (!panicking_cpu.compare_exchange_strong(expected, cpu)) {
        if (expected == cpu && !told_of_second.exchange(true))
            Lines()("HV-E010: a second panic while reporting the first; halted");
        cpu::stop();
    }
    if (panic_settings.freeze_others != nullptr) panic_settings.freeze_others();
}

void print_stack(u64 rsp) {
    const auto place = find_stack(rsp);
    if (!place) {
        Lines()("  stack: none of ours (RSP {:#x})", rsp);
    } else if (place->guard) {
        Lines()("  stack: RSP is in the guard page below the {} stack of CPU {}", place->name, place->cpu);
    } else {
        Lines()("  stack: {} stack of CPU {}, {} bytes in use", place->name, place->cpu, place->top - rsp);
    }
}

void print_address(Sink& sink, u64 address) {
    FixedString<160> line;
    u64 offset = 0;
    std::string_view name;
    if (panic_settings.symbolize != nullptr) name = panic_settings.symbolize(address, offset);
    if (name.empty()) {
        print(line, "    {:#018x}\n", address);
    } else {
        print(line, "    {:#018x} {}+{:#x}\n", address, name, offset);
    }
    sink.write(line.view());
}

[[nodiscard]] bool in_text(u64 address) {
    return address >= reinterpret_cast<u64>(text_start) && address < reinterpret_cast<u64>(text_end);
}

// What may be return addresses on the stack, where there is no chain of frames to follow.
void print_return_addresses(Sink& sink, u64 rsp) {
    const auto place = find_stack(rsp);
    if (!place || place->guard || rsp % 8 != 0) return;
    constexpr unsigned most_words = 64, most_addresses = 8;
    unsigned shown = 0;
    for (unsigned i = 0; i < most_words && shown < most_addresses && rsp + 8 <= place->top; ++i, rsp += 8) {
        const u64 value = *reinterpret_cast<const u64*>(rsp);
        if (!in_text(value)) continue;
        print_address(sink, value);
        ++shown;
    }
}

[[nodiscard]] bool waits_for_others(u32 cpu) {
    for (u32 other = 0; other < max_cpus; ++other) {
        if (other != cpu && panic_settings.core_runs(other) && !frozen.of(other).valid.load()) return true;
    }
    return false;
}

void print_others(u32 cpu) {
    if (panic_settings.core_runs == nullptr || panic_settings.output == nullptr) return;
    // How fast the TSC runs may not be known: between 50 ms and a second.
    constexpr u64 patience = 250'000'000;
    const u64 start = cpu::read_tsc();
    while (waits_for_others(cpu) && cpu::read_tsc() - start < patience) cpu::pause();
    for (u32 other = 0; other < max_cpus; ++other) {
        if (other == cpu || !panic_settings.core_runs(other)) continue;
        const Frozen& place = frozen.of(other);
        if (!place.valid.load(std::memory_order_acquire)) {
            Lines()("  CPU {} does not answer", other);
            continue;
        }
        Lines()("  CPU {} was at:", other);
        print_backtrace(*panic_settings.output, place.rip, place.rbp);
        // In the world switch RBP is the guest's.
        if (!find_stack(place.rbp)) print_return_addresses(*panic_settings.output, place.rsp);
    }
}

[[noreturn]] void leave_panic(u32 cpu) {
    print_others(cpu);
    if (panic_settings.reset != nullptr) {
        Lines()("Resetting the machine.");
        panic_settings.reset();
    }
    Lines()("All cores are stopped.");
    cpu::stop();
}

}  // namespace

bool panic_in_progress() {
    return panicking_cpu.load() != nobody;
}

void freeze_for_panic(const TrapFrame& frame) {
    // By the stack it runs on, the NMI's: GS may be a guest's at this moment.
    Frozen& place = frozen.of(cpu_by_stack(stack_pointer()));
    place.rip = frame.rip;
    place.rbp = frame.rbp;
    place.rsp = frame.rsp;
    place.valid.store(true, std::memory_order_release);
    cpu::stop();
}

void print_backtrace(Sink& sink, u64 rip, u64 rbp) {
    if (rip != 0) print_address(sink, rip);
    constexpr unsigned max_frames = 32;
    for (unsigned i = 0; i < max_frames; ++i) {
        const auto place = find_stack(rbp);
        // Each frame pointer leads up the same stack, to a saved RBP and a return address.
        if (!place || place->guard || rbp % 8 != 0 || rbp + 16 > place->top) break;
        const auto* frame = reinterpret_cast<const u64*>(rbp);
        if (!in_text(frame[1])) break;
        print_address(sink, frame[1]);
        if (frame[0] <= rbp) break;
        rbp = frame[0];
    }
}

void panic_with(std::string_view text) {
    const u64 rsp = stack_pointer();
    const u32 cpu = cpu_by_stack(rsp);
    enter_panic(cpu);
    Lines()("");
    Lines()("{}", text);
    print_stack(rsp);
    if (panic_settings.output != nullptr) {
        Lines()("  called from:");
        print_backtrace(*panic_settings.output, 0, reinterpret_cast<u64>(__builtin_frame_address(0)));
    }
    leave_panic(cpu);
}

void panic_on_trap(const TrapFrame& f) {
    const u64 cr2 = cpu::read_cr2();
    const u32 cpu = cpu_by_stack(stack_pointer());
    enter_panic(cpu);
    Lines()("");

    // A stack that overflows hits its guard page. The processor cannot push that page fault's frame, either,
    // so it arrives as a double fault, with CR2 still in the guard page.
    const auto hit = find_stack(cr2);
    if ((f.vector == 8 || f.vector == 14) && hit && hit->guard) {
        Lines()("HV-E013: stack overflow of the {} stack of CPU {}; report this", hit->name, hit->cpu);
    } else if (f.vector == 18) {
        Lines()("HV-E012: machine check; the hardware reports an uncorrectable error, have it examined");
        if (panic_settings.output != nullptr) print_fatal_machine_check(*panic_settings.output);
    } else {
        Lines()("HV-E009: unexpected exception in the hypervisor; report this");
    }
    Lines()("  {} (vector {}), error code {:#x}, CR2 {:#018x}", exception_name(f.vector), f.vector,
            f.error_code, cr2);
    Lines()("  RIP {:016x} CS {:04x} RFLAGS {:08x} RSP {:016x} SS {:04x}", f.rip, f.cs, f.rflags, f.rsp,
            f.ss);
    Lines()("  RAX {:016x} RBX {:016x} RCX {:016x} RDX {:016x}", f.rax, f.rbx, f.rcx, f.rdx);
    Lines()("  RSI {:016x} RDI {:016x} RBP {:016x} R8  {:016x}", f.rsi, f.rdi, f.rbp, f.r8);
    Lines()("  R9  {:016x} R10 {:016x} R11 {:016x} R12 {:016x}", f.r9, f.r10, f.r11, f.r12);
    Lines()("  R13 {:016x} R14 {:016x} R15 {:016x}", f.r13, f.r14, f.r15);
    Lines()("  CR0 {:08x} CR3 {:016x} CR4 {:08x}", cpu::read_cr0(), cpu::read_cr3(), cpu::read_cr4());
    print_stack(f.rsp);
    if (panic_settings.output != nullptr) {
        Lines()("  at:");
        print_backtrace(*panic_settings.output, f.rip, f.rbp);
    }
    leave_panic(cpu);
}

}  // namespace bulkhead
