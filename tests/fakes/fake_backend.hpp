// A processor's virtualisation extension that the test scripts: registers as plain values, exits in the order
// given, and a history of entries. At every entry it checks what hardware and the interface demand.
#pragma once

#include <catch2/catch.hpp>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "arch/x86/regs/control.hpp"
#include "tests/fakes/fake_machine.hpp"
#include "vmm/backend_factory.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead {

class FakeBackend final : public VcpuBackend {
  public:
    // What the guest does in one turn, and how it exits.
    using Step = std::function<Exit(FakeBackend&)>;

    struct Entry {
        u64 deadline = 0;
        std::optional<Event> injected{};
        bool interrupt_window = false;
        bool nmi_window = false;
        u8 tpr_threshold = 0;
        u64 rip = 0;
    };

    FakeBackend(FakeMachine& machine, ApicAssist assist) : machine_(machine), assist_(assist) { reset(); }

    // The script; when it is used up a host interrupt ends each turn.
    std::deque<Step> script;
    std::vector<Entry> entries;
    u64 turn_ticks = 100;  // how long a turn takes
    u64 reset_ticks = 0;   // and a reset

    u64 registers[static_cast<unsigned>(Register::count)] = {};
    Segment segments[8] = {};
    DescriptorTable gdt{}, idt{};
    Interruptibility blocked{};
    std::optional<Event> injection{};
    bool interrupt_window = false, nmi_window = false;
    u8 tpr_threshold = 0, task_priority = 0;
    u64 tsc_offset = 0, extended_control = 1;
    u64 debug[8] = {};
    std::map<u8, bool> eoi_exits;
    std::vector<std::pair<u8, u8>> virtual_interrupts;
    std::vector<ApicMode> apic_modes;
    std::vector<bool> halt_allowed, halts;  // what let_halt() and note_halt() were told
    bool sleeps = false;                    // in HLT, in guest mode
    unsigned loads = 0, saves = 0, resets = 0, flushes = 0, replaced = 0;
    bool loaded = false;
    // Catch's assertions are for one thread: with this set, breaches are only counted.
    bool threaded = false;
    unsigned breaches = 0;

    void then(Step step) { script.push_back(std::move(step)); }
    void then(const Exit& exit) {
        script.push_back([exit](FakeBackend&) { return exit; });
    }
    void then(ExitReason reason) { then(Exit(reason)); }

    [[nodiscard]] Exit run(u64 deadline) override {
        demand(loaded);
        check_injection();
        entries.push_back({.deadline = deadline,
                           .injected = injection,
                           .interrupt_window = interrupt_window,
                           .nmi_window = nmi_window,
                           .tpr_threshold = tpr_threshold,
                           .rip = read(Register::rip)});
        if (injection && injection->type == Event::Type::nmi) blocked.nmi_blocked = true;
        if (injection && injection->type == Event::Type::external_interrupt) set_flag(rflags::if_, false);
        injection.reset();
        blocked.sti_shadow = blocked.mov_ss_shadow = false;
        entered = machine_.now;
        machine_.now += turn_ticks;
        left = machine_.now;
        if (script.empty()) return Exit(ExitReason::external_interrupt);
        const Step step = std::move(script.front());
        script.pop_front();
        const Exit exit = step(*this);
        left = machine_.now;
        return exit;
    }

    [[nodiscard]] u64 read(Register which) const override { return registers[static_cast<unsigned>(which)]; }
    void write(Register which, u64 value) override {
        registers[static_cast<unsigned>(which)] = value;
        if (which != Register::cr0 && which != Register::efer) return;
        u64& extended = registers[static_cast<unsigned>(Register::efer)];
        const bool long_mode = (extended & efer::lme) != 0 && (read(Register::cr0) & cr0::pg) != 0;
        extended = (extended & ~efer::lma) | (long_mode ? efer::lma : 0);
    }
    [[nodiscard]] Segment segment(SegmentName which) const override {
        return segments[static_cast<unsigned>(which)];
    }
    void set_segment(SegmentName which, const Segment& value) override {
        segments[static_cast<unsigned>(which)] = value;
    }
    [[nodiscard]] DescriptorTable gdtr() const override { return gdt; }
    [[nodiscard]] DescriptorTable idtr() const override { return idt; }
    void set_gdtr(const DescriptorTable& value) override { gdt = value; }
    void set_idtr(const DescriptorTable& value) override { idt = value; }
    [[nodiscard]] Interruptibility interruptibility() const override { return blocked; }
    void set_interruptibility(Interruptibility value) override { blocked = value; }
    void inject(const Event& event) override {
        if (injection) ++replaced;
        injection = event;
    }
    [[nodiscard]] bool injection_pending() const override { return injection.has_value(); }
    void cancel_injection() override { injection.reset(); }
    void set_interrupt_window(bool wanted) override { interrupt_window = wanted; }
    void set_nmi_window(bool wanted) override { nmi_window = wanted; }
    void let_halt(bool allowed) override { halt_allowed.push_back(allowed); }
    [[nodiscard]] bool take_halt() override { return std::exchange(sleeps, false); }
    void note_halt(bool interrupts) override { halts.push_back(interrupts); }
    void set_tsc_offset(u64 offset) override { tsc_offset = offset; }
    [[nodiscard]] ApicAssist apic_assist() const override { return assist_; }
    void set_apic_mode(ApicMode mode) override { apic_modes.push_back(mode); }
    void set_virtual_interrupt(u8 requesting, u8 servicing) override {
        virtual_interrupts.emplace_back(requesting, servicing);
    }
    void set_eoi_exit(Vector vector, bool exits) override { eoi_exits[vector.raw()] = exits; }
    void set_tpr_threshold(u8 priority_class) override { tpr_threshold = priority_class; }
    [[nodiscard]] u8 cr8() const override { return task_priority; }
    void set_cr8(u8 value) override { task_priority = value; }
    void flush_translations() override { ++flushes; }
    void explain(Sink& sink) const override { print(sink, "the fake refuses"); }
    void load() override {
        REQUIRE_FALSE(loaded);
        loaded = true;
        ++loads;
    }
    void save() override {
        REQUIRE(loaded);
        loaded = false;
        ++saves;
    }
    [[nodiscard]] u64 xcr0() const override { return extended_control; }
    void set_xcr0(u64 value) override { extended_control = value; }
    [[nodiscard]] u64 debug_register(unsigned index) const override { return debug[index]; }
    void set_debug_register(unsigned index, u64 value) override { debug[index] = value; }

    void reset() override {
        gprs = {};
        for (u64& value : registers) value = 0;
        for (Segment& value : segments) value = {.limit = 0xFFFF, .access = 0x93};
        segments[1] = {.selector = 0xF000, .base = 0xFFFF0000, .limit = 0xFFFF, .access = 0x9B};
        write(Register::rip, 0xFFF0);
        write(Register::rflags, 2);
        write(Register::cr0, cr0::cd | cr0::nw | cr0::et);
        write(Register::dr7, 0x400);
        blocked = {};
        injection.reset();
        interrupt_window = nmi_window = false;
        tpr_threshold = task_priority = 0;
        extended_control = 1;
        for (u64& value : debug) value = 0;
        debug[6] = 0xFFFF0FF0;
        machine_.now += reset_ticks;
        ++resets;
    }

    void set_flag(u64 flag, bool set) {
        u64& flags = registers[static_cast<unsigned>(Register::rflags)];
        flags = set ? flags | flag : flags & ~flag;
    }

  private:
    void demand(bool met) {
        if (threaded) {
            breaches += met ? 0 : 1;
        } else {
            REQUIRE(met);
        }
    }
    void check_injection() {
        if (!injection) return;
        const Event& event = *injection;
        const bool shadow = blocked.sti_shadow || blocked.mov_ss_shadow;
        switch (event.type) {
            case Event::Type::external_interrupt:
                demand((read(Register::rflags) & rflags::if_) != 0);
                demand(!shadow);
                break;
            case Event::Type::nmi:
                demand(event.vector == Vector(2));
                demand(!blocked.nmi_blocked);
                break;
            case Event::Type::hardware_exception:
                demand(event.vector.raw() < 32);
                demand(event.vector != Vector(2));
                break;
            default: break;
        }
    }

    FakeMachine& machine_;
    ApicAssist assist_;
};

// Makes fake backends, which stay outside the arena; what it takes of the arena stands for VMCS or VMCB.
class FakeFactory final : public BackendFactory {
  public:
    explicit FakeFactory(FakeMachine& machine, ApicAssist assist = ApicAssist::none)
        : machine_(machine), assist_(assist) {}

    [[nodiscard]] std::string_view name() const override { return "fake"; }
    [[nodiscard]] const PagingFormat& nested_format() const override { return ept_paging; }
    [[nodiscard]] unsigned nested_max_level() const override { return max_level; }
    [[nodiscard]] ApicAssist apic_assist() const override { return assist_; }
    [[nodiscard]] Result<> map_apic_access(NestedPageTable& nested, Arena& arena) override {
        if (assist_ == ApicAssist::none) return {};
        auto page = arena.allocate_pages(1);
        if (!page) return std::unexpected(page.error());
        return nested.map(GuestPhysical(0xFEE00000), page->physical, page_size, {.permissions = read_write});
    }
    [[nodiscard]] Result<VcpuBackend*> create(Arena& arena, const BackendParameters& given) override {
        if (creations++ == fail_at) return fail("the fake makes no more");
        for (unsigned i = 0; i < 6; ++i) {
            auto page = arena.allocate_pages(1);
            if (!page) return std::unexpected(page.error());
        }
        parameters.push_back(given);
        backends.push_back(std::make_unique<FakeBackend>(machine_, assist_));
        return backends.back().get();
    }

    unsigned max_level = 3;
    u64 creations = 0;
    u64 fail_at = ~u64{0};
    std::vector<BackendParameters> parameters;
    std::vector<std::unique_ptr<FakeBackend>> backends;

  private:
    FakeMachine& machine_;
    ApicAssist assist_;
};

}  // namespace bulkhead
