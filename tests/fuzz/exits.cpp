// The whole exit dispatcher: a VM of two processors over hardware that exits with whatever the input says,
// from any state that a guest can bring about, with guest memory that changes between two reads. Each entry
// is checked as the hardware would, each turn ends, and nothing but the VM's own state changes.
#include <optional>

#include "arch/x86/regs/control.hpp"
#include "tests/fakes/fake_memory.hpp"
#include "tests/fuzz/policies.hpp"
#include "tests/unit/vmm/loader/images.hpp"
#include "vmm/control_registers.hpp"
#include "vmm/platform.hpp"
#include "vmm/vm_builder.hpp"

using namespace bulkhead;

namespace {

constexpr u64 memory_bytes = 2 * mib, ram_start = 4 * mib;
constexpr unsigned processors = 2;
constexpr unsigned most_entries = 200;  // in one turn

// What a second reader of guest memory sees; see at() and read() below.
struct DoubleFetch {
    bool on = false;
    fuzz::Noise noise{0};
    u64 last = ~u64{0};
};
DoubleFetch double_fetch;

class Hardware final : public VcpuBackend {
  public:
    Hardware(fuzz::Input& in, fuzz::Machine& machine, const BackendParameters& parameters, ApicAssist assist)
        : in_(in), machine_(machine), parameters_(parameters), assist_(assist) {
        reset();
    }

    [[nodiscard]] Exit run(u64 deadline) override {
        MUST(loaded_);
        MUST(++entries_ <= most_entries + 8);
        MUST(deadline > machine_.now || deadline_once_++ < 1'000'000);
        check_entry();
        if (injection_ && injection_->type == Event::Type::nmi) blocked_.nmi_blocked = true;
        if (injection_ && injection_->type == Event::Type::external_interrupt)
            registers_[index(Register::rflags)] &= ~rflags::if_;
        const bool injected = injection_.has_value();
        const Event event = injection_.value_or(Event{});
        injection_.reset();
        blocked_.sti_shadow = blocked_.mov_ss_shadow = false;
        entered = machine_.now;
        machine_.now += 1 + in_.byte() * 64U;
        left = machine_.now;
        if (entries_ > most_entries || in_.empty()) return Exit(ExitReason::external_interrupt);
        live();
        Exit exit = make_exit();
        // The delivery of what was injected may be what exited.
        if (injected && in_.rarely(32)) exit.interrupted = event;
        return exit;
    }
    void begin_turn() { entries_ = 0; }

    [[nodiscard]] u64 read(Register which) const override { return registers_[index(which)]; }
    void write(Register which, u64 value) override {
        registers_[index(which)] = value;
        if (which != Register::cr0 && which != Register::efer) return;
        u64& efer_ = registers_[index(Register::efer)];
        const bool long_mode = (efer_ & efer::lme) != 0 && (read(Register::cr0) & cr0::pg) != 0;
        efer_ = (efer_ & ~efer::lma) | (long_mode ? efer::lma : 0);
    }
    [[nodiscard]] Segment segment(SegmentName which) const override {
        return segments_[static_cast<u8>(which)];
    }
    void set_segment(SegmentName which, const Segment& value) override {
        segments_[static_cast<u8>(which)] = value;
    }
    [[nodiscard]] DescriptorTable gdtr() const override { return gdt_; }
    [[nodiscard]] DescriptorTable idtr() const override { return idt_; }
    void set_gdtr(const DescriptorTable& value) override { gdt_ = value; }
    void set_idtr(const DescriptorTable& value) override { idt_ = value; }
    [[nodiscard]] Interruptibility interruptibility() const override { return blocked_; }
    void set_interruptibility(Interruptibility value) override { blocked_ = value; }
    void inject(const Event& event) override { injection_ = event; }
    void cancel_injection() override { injection_.reset(); }
    [[nodiscard]] bool injection_pending() const override { return injection_.has_value(); }
    void set_interrupt_window(bool) override {}
    void set_nmi_window(bool) override {}
    void set_tsc_offset(u64) override {}
    [[nodiscard]] ApicAssist apic_assist() const override { return assist_; }
    void set_apic_mode(ApicMode mode) override { MUST(mode != ApicMode::x2apic || parameters_.x2apic); }
    void set_virtual_interrupt(u8, u8) override {}
    void set_eoi_exit(Vector, bool) override {}
    void set_tpr_threshold(u8 priority) override { MUST(priority < 16); }
    [[nodiscard]] u8 cr8() const override { return cr8_; }
    void set_cr8(u8 value) override {
        MUST(value < 16);
        cr8_ = value;
    }
    void flush_translations() override {}
    void explain(Sink& sink) const override { sink.write("refused"); }
    void load() override { loaded_ = true; }
    void save() override { loaded_ = false; }
    [[nodiscard]] u64 xcr0() const override { return xcr0_; }
    void set_xcr0(u64 value) override {
        MUST((value & ~parameters_.xcr0_supported) == 0 && (value & 1) != 0);
        xcr0_ = value;
    }
    [[nodiscard]] u64 debug_register(unsigned which) const override {
        MUST(which < 4 || which == 6);
        return debug_[which];
    }
    void set_debug_register(unsigned which, u64 value) override {
        MUST(which < 4 || (which == 6 && value >> 32 == 0));
        debug_[which] = value;
    }
    void reset() override {
        gprs = {};
        for (u64& value : registers_) value = 0;
        for (Segment& value : segments_) value = {.limit = 0xFFFF, .access = 0x93};
        segments_[1] = {.selector = 0xF000, .base = 0xFFFF0000, .limit = 0xFFFF, .access = 0x9B};
        write(Register::rip, 0xFFF0);
        write(Register::rflags, 2);
        write(Register::cr0, cr0::cd | cr0::nw | cr0::et);
        write(Register::dr7, 0x400);
        write(Register::pat, 0x0007040600070406);
        blocked_ = {};
        injection_.reset();
        cr8_ = 0;
        xcr0_ = 1;
        for (u64& value : debug_) value = 0;
        debug_[6] = 0xFFFF0FF0;
    }

  private:
    [[nodiscard]] static constexpr unsigned index(Register which) { return static_cast<unsigned>(which); }

    // Intel SDM Vol. 3C, 27.3 (June 2023 edition), as far as the VMM above the backend is answerable for it.
    void check_entry() const {
        const u64 cr0_ = read(Register::cr0), cr4_ = read(Register::cr4), efer_ = read(Register::efer);
        const bool paging = (cr0_ & cr0::pg) != 0, long_mode = (efer_ & efer::lma) != 0;
        MUST((cr0_ & ~cr0::defined) == 0 && (!paging || (cr0_ & cr0::pe) != 0));
        MUST((cr0_ & cr0::nw) == 0 || (cr0_ & cr0::cd) != 0);
        MUST((cr4_ & ~parameters_.cr4_mask) == 0);
        MUST(!long_mode || (cr4_ & cr4::pae) != 0);
        MUST(long_mode || (cr4_ & cr4::pcide) == 0);
        MUST(long_mode == (paging && (efer_ & efer::lme) != 0));
        MUST((efer_ & efer::svme) == 0);
        MUST(read(Register::cr3) >> 52 == 0);
        MUST(read(Register::dr7) >> 32 == 0 && has_bit(read(Register::dr7), 10));
        MUST(has_bit(read(Register::rflags), 1) && (read(Register::rflags) & ~u64{0x3F7FD7}) == 0);
        for (const Register base :
             {Register::fs_base, Register::gs_base, Register::kernel_gs_base, Register::lstar,
              Register::cstar, Register::sysenter_esp, Register::sysenter_eip}) {
            MUST(is_canonical(read(base), u8{57}));
        }
        if (!(long_mode && segments_[1].long_mode())) MUST(read(Register::rip) >> 32 == 0);
        if (!injection_) return;
        const Event& event = *injection_;
        switch (event.type) {
            case Event::Type::external_interrupt: break;
            case Event::Type::nmi: MUST(event.vector == Vector(2)); break;
            case Event::Type::hardware_exception:
                MUST(event.vector.raw() < 32 && event.vector != Vector(2));
                MUST(!event.error_code || *event.error_code <= 0x1FFFF);
                break;
            default: MUST(event.instruction_length <= 15);
        }
    }

    // What the guest did meanwhile, without an exit.
    void live() {
        const u8 what = in_.byte();
        for (unsigned i = 0; i < (what & 3); ++i) gprs[in_.byte()] = in_.number();
        u64& rip = registers_[index(Register::rip)];
        u64& flags = registers_[index(Register::rflags)];
        const bool long_mode = (read(Register::efer) & efer::lma) != 0;
        const bool protected_mode = (read(Register::cr0) & cr0::pe) != 0;
        if ((what & 4) != 0) {
            rip = 0x1000 + in_.value<u16>();
            if (in_.rarely(8)) rip = in_.number() & low_mask(47);
        }
        if ((what & 8) != 0) {
            flags = (in_.value<u32>() & 0x3F7FD5) | 2;
            if (!protected_mode || long_mode) flags &= ~rflags::vm;
        }
        if ((what & 0x10) != 0) {
            Segment& s = segments_[in_.byte() % 8U];
            s.base = in_.rarely(128) ? in_.number() & 0xFFFFFFFF : 0;
            s.limit = in_.rarely(128) ? static_cast<u32>(in_.number()) : 0xFFFFFFFF;
            s.unusable = in_.rarely(16);
        }
        if ((what & 0x20) != 0) {
            Segment& code = segments_[1];
            const u8 kind = in_.byte();
            code.base = 0;
            code.limit = 0xFFFFFFFF;
            code.access = long_mode && (kind & 1) != 0 ? 0xA09B : (kind & 2) != 0 ? 0xC09B : 0x9B;
            const unsigned cpl = !protected_mode ? 0 : (flags & rflags::vm) != 0 ? 3 : (kind >> 2) & 3U;
            for (const unsigned i : {1U, 2U})
                segments_[i].access = static_cast<u16>(insert(segments_[i].access, 6, 5, cpl));
        }
        if ((what & 0x40) != 0) {
            const u8 kind = in_.byte();
            blocked_ = {.sti_shadow = (kind & 3) == 1,
                        .mov_ss_shadow = (kind & 3) == 2,
                        .nmi_blocked = (kind & 4) != 0};
            cr8_ = kind >> 4;
        }
        if (!(long_mode && segments_[1].long_mode())) rip &= 0xFFFFFFFF;
        if ((what & 0x80) != 0) {
            // Code, or tables.
            const Bytes bytes = in_.take(16);
            const u64 to = in_.flag() ? rip : in_.value<u32>() % memory_bytes;
            (void)parameters_.memory->write(GuestPhysical(to), bytes);
        }
    }

    [[nodiscard]] GuestPhysical device_address() {
        switch (in_.byte() % 6) {
            case 0: return GuestPhysical(platform::io_apic + (in_.byte() & 0x1FU));
            case 1: return GuestPhysical(platform::local_apic + in_.byte() * 16U);
            case 2: return GuestPhysical(platform::bios_area + in_.value<u16>());
            case 3: return GuestPhysical(in_.number() & low_mask(40));
            case 4: return GuestPhysical(memory_bytes + in_.byte() - 128U);
            default: return GuestPhysical(in_.value<u32>());
        }
    }

    Exit make_exit() {
        Exit exit(static_cast<ExitReason>(in_.byte() % static_cast<u8>(ExitReason::count)));
        // Those that end the VM at once are rare.
        switch (exit.reason) {
            case ExitReason::rdtsc:
            case ExitReason::descriptor_table:
            case ExitReason::init_signal:
            case ExitReason::sipi:
            case ExitReason::task_switch:
            case ExitReason::page_modification_log_full:
            case ExitReason::triple_fault:
            case ExitReason::entry_failure:
            case ExitReason::hardware_error:
                if (!in_.rarely(16)) exit.reason = ExitReason::nested_page_fault;
                break;
            default: break;
        }
        exit.instruction_length = in_.flag() ? static_cast<u8>(1 + in_.byte() % 15) : 0;
        const u8 shape = in_.byte();
        switch (exit.reason) {
            case ExitReason::port_io: {
                static constexpr u16 ports[] = {0x20,  0xA0,  0x40,  0x43,  0x60,  0x61,  0x64,  0x70,  0x71,
                                                0x92,  0xB2,  0x3F8, 0x3F9, 0x4D0, 0x600, 0x604, 0x608, 0xCF8,
                                                0xCF9, 0xCFC, 0x3C0, 0x3D4, 0x3DA, 0x80,  0xFFFF};
                const u16 port = in_.flag() ? ports[in_.byte() % std::size(ports)] : in_.value<u16>();
                exit.port = {.port = Port(port),
                             .size = static_cast<u8>(1U << shape % 3U),
                             .in = (shape & 4) != 0,
                             .string = (shape & 0x38) == 0x38,
                             .repeat = (shape & 0x40) != 0};
                break;
            }
            case ExitReason::msr_read:
            case ExitReason::msr_write: {
                const u8 kind = in_.byte();
                exit.msr.index = MsrIndex((kind & 3) == 0   ? 0x800 + in_.byte()
                                          : (kind & 3) == 1 ? 0xC0000080 + in_.byte() % 4U
                                          : (kind & 3) == 2 ? in_.value<u16>() % 0x400
                                                            : static_cast<u32>(in_.number()));
                break;
            }
            case ExitReason::control_register:
                exit.control = {.number = static_cast<u8>(shape & 15),
                                .kind = static_cast<ControlRegisterAccess::Kind>(in_.byte() % 4),
                                .general_register = static_cast<u8>(shape >> 4),
                                .lmsw_value = in_.value<u16>(),
                                .operands_known = in_.flag()};
                if (in_.flag()) sensible_control_write(exit.control);
                break;
            case ExitReason::debug_register:
                exit.debug = {.number = static_cast<u8>(shape & 7),
                              .read = in_.flag(),
                              .general_register = static_cast<u8>(shape >> 4),
                              .operands_known = in_.flag()};
                break;
            case ExitReason::nested_page_fault:
                exit.nested = {.address = device_address(),
                               .read = (shape & 1) != 0,
                               .write = (shape & 2) != 0,
                               .fetch = (shape & 0xF0) == 0xF0,
                               .present = (shape & 4) != 0,
                               .during_walk = (shape & 8) != 0,
                               .linear_known = (shape & 0x10) != 0};
                if (exit.nested.linear_known) exit.nested.linear = GuestVirtual(in_.number());
                break;
            case ExitReason::apic_access:
            case ExitReason::apic_write:
                exit.apic = {.offset = static_cast<u16>(in_.value<u16>() & 0xFFF),
                             .write = (shape & 1) != 0,
                             .fetch = (shape & 0xF0) == 0xF0,
                             .during_event = (shape & 0xFE) == 0xFE};
                break;
            case ExitReason::exception:
                exit.exception.event = make_exception((shape & 1) != 0   ? exception::debug
                                                      : (shape & 2) != 0 ? exception::alignment_check
                                                                         : Vector(shape >> 3));
                if (exit.exception.event.vector == Vector(2)) exit.exception.event.vector = exception::debug;
                exit.exception.debug_status = in_.value<u16>();
                break;
            case ExitReason::virtual_eoi: exit.vector = Vector(shape); break;
            case ExitReason::interrupt_window:
                registers_[index(Register::rflags)] |= rflags::if_;
                blocked_ = {};
                break;
            default: break;
        }
        // An event whose delivery was broken off.
        if (in_.rarely(8)) {
            exit.interrupted = Event{
                .type = (shape & 1) != 0 ? Event::Type::external_interrupt : Event::Type::hardware_exception,
                .vector = Vector((shape & 1) != 0 ? shape : shape >> 3)};
            if (exit.interrupted->vector == Vector(2)) exit.interrupted->vector = exception::page_fault;
        }
        return exit;
    }

    // Blind values hardly ever lead to paging.
    void sensible_control_write(ControlRegisterAccess& access) {
        static constexpr u8 numbers[] = {0, 3, 4, 4};
        const u8 choice = in_.byte();
        access = {.number = numbers[choice & 3], .kind = ControlRegisterAccess::Kind::write};
        switch (access.number) {
            case 0:
                gprs.rax =
                    cr0::pe | cr0::et | ((choice & 4) != 0 ? cr0::pg : 0) | ((choice & 8) != 0 ? cr0::wp : 0);
                break;
            case 3: gprs.rax = u64{choice} << 12 & 0xF000; break;
            default: gprs.rax = cr4::pae | (in_.number() & parameters_.cr4_mask); break;
        }
    }

    fuzz::Input& in_;
    fuzz::Machine& machine_;
    BackendParameters parameters_;
    ApicAssist assist_;
    u64 registers_[static_cast<unsigned>(Register::count)] = {};
    Segment segments_[8] = {};
    DescriptorTable gdt_{}, idt_{};
    Interruptibility blocked_{};
    std::optional<Event> injection_{};
    u8 cr8_ = 0;
    u64 xcr0_ = 1, debug_[8] = {};
    bool loaded_ = false;
    unsigned entries_ = 0;
    unsigned deadline_once_ = 0;
};

class Factory final : public BackendFactory {
  public:
    Factory(fuzz::Input& in, fuzz::Machine& machine) : in_(in), machine_(machine), shape_(in.byte()) {}

    [[nodiscard]] std::string_view name() const override { return "fuzz"; }
    [[nodiscard]] const PagingFormat& nested_format() const override { return ept_paging; }
    [[nodiscard]] unsigned nested_max_level() const override { return 1 + shape_ % 3U; }
    [[nodiscard]] ApicAssist apic_assist() const override { return static_cast<ApicAssist>(shape_ / 4U % 3); }
    [[nodiscard]] Result<> map_apic_access(NestedPageTable&, Arena&) override {
        if (shape_ == 0xFF) return fail("no page");
        return {};
    }
    [[nodiscard]] Result<VcpuBackend*> create(Arena& arena, const BackendParameters& parameters) override {
        if (shape_ == 0xFE) return fail("no more");
        if (auto page = arena.allocate_pages(2); !page) return std::unexpected(page.error());
        MUST(count < processors);
        made[count] = std::make_unique<Hardware>(in_, machine_, parameters, apic_assist());
        return made[count++].get();
    }

    unsigned count = 0;
    std::unique_ptr<Hardware> made[processors];

  private:
    fuzz::Input& in_;
    fuzz::Machine& machine_;
    u8 shape_;
};

class World final : public Surroundings {
  public:
    void serial_output(u16 vm, u8) override { MUST(vm == 3); }
    bool survives_machine_check(u16) override { return false; }
    void wake(u16 vm, unsigned vcpu) override { MUST(vm == 3 && vcpu < processors); }
};

}  // namespace

// The dispatcher's reads of guest memory come by here (see cmake/fuzz.cmake): another processor of the guest
// has changed the bytes since they were read last.
using AtFunction = u8*(const GuestMemory*, GuestPhysical, u64);
extern "C" AtFunction real_at __asm__(
    "__real__ZNK8bulkhead11GuestMemory2atENS_7AddressINS_18GuestPhysicalSpaceEEEm");
extern "C" AtFunction wrapped_at __asm__(
    "__wrap__ZNK8bulkhead11GuestMemory2atENS_7AddressINS_18GuestPhysicalSpaceEEEm");
extern "C" u8* wrapped_at(const GuestMemory* memory, GuestPhysical address, u64 length) {
    u8* found = real_at(memory, address, length);
    if (found == nullptr || !double_fetch.on || length > 8) return found;
    if (double_fetch.last == address.raw() && double_fetch.noise.byte() < 64)
        found[double_fetch.noise.byte() % length] ^= double_fetch.noise.byte();
    double_fetch.last = address.raw();
    return found;
}

void fuzz_one(fuzz::Input& in) {
    static FakeMemory physical(ram_start + memory_bytes + mib);
    double_fetch = {.on = in.flag(), .noise = fuzz::Noise(in.byte())};
    fuzz::Machine machine(in);
    Factory factory(in, machine);
    World world;
    Arena arena;
    AllocationFault fault{.fail_at = in.rarely(16) ? in.byte() : ~u64{0}};
    arena.set_fault(&fault);
    const UnitRun run{HostPhysical(ram_start), memory_bytes / large_page_size};
    const VmBlueprint blueprint{.number = 3,
                                .vcpus = processors,
                                .memory = memory_bytes,
                                .ram = {&run, 1},
                                .window = physical.window()};
    const u64 arena_bytes = (arena_bytes_for(blueprint) + page_size - 1) & ~(page_size - 1);
    MUST(arena_bytes <= 2 * mib);
    MUST(arena.add(
        {.base = physical.at(HostPhysical(mib)), .physical = HostPhysical(mib), .length = arena_bytes}));
    auto built = build_virtual_machine(arena, blueprint, machine, factory, world);
    if (!built) {
        MUST(!built.error().text.empty());
        return;
    }
    VirtualMachine& vm = **built;
    // Chips after RESET and empty RAM. Mostly no kernel is wanted, so that this "fails" in the end.
    static const std::vector<u8> kernel =
        test::make_elf({.physical = 0x100000, .entry = 0xFFFFFFFF80200010, .pvh_entry = 0x100020});
    const bool with_kernel = in.rarely(32);
    const auto start = vm.power_on({.kernel = with_kernel ? Bytes(kernel) : Bytes()});
    MUST(start.has_value() == with_kernel);
    vm.resume();
    for (unsigned i = 0; i < processors; ++i) {
        factory.made[i]->load();
        vm.vcpus()[i]->reset(i == 0 && with_kernel ? &*start : nullptr);
    }
    while (!in.empty()) {
        const u8 operation = in.byte();
        const unsigned which = operation & 1;
        Vcpu& vcpu = *vm.vcpus()[which];
        switch (operation >> 1 & 7) {
            case 0: (void)vm.serial_input(in.byte()); break;
            case 1:
                if ((operation & 0x10) != 0) {
                    (void)vm.press_power_button();
                } else {
                    (void)vm.press_keys(in.take(in.byte() % 8U));
                }
                break;
            case 2: machine.now += u64{in.byte()} << (in.byte() % 40U); break;
            case 3:
                vm.pause();
                machine.now += in.byte();
                vm.resume();
                vcpu.refresh_tsc_offset();
                break;
            default: {
                factory.made[which]->begin_turn();
                const Vcpu::RunResult result = vcpu.run(machine.now + 1 + in.value<u32>());
                MUST((result == Vcpu::RunResult::stopped) == vm.stopped());
                if (result == Vcpu::RunResult::blocked) (void)vcpu.wake_deadline();
            }
        }
        if (!vm.stopped()) continue;
        MUST(!vm.stop_text().empty() && fuzz::is_plain(vm.stop_text()));
        fuzz::TextSink report;
        vcpu.describe(report);
        return;
    }
}
