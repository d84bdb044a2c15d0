// A whole virtual PC over fake processors, powered on with a small PVH kernel: protected mode, flat segments,
// no paging, so that linear addresses are physical ones.
#pragma once

#include <catch2/catch.hpp>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <string>
#include <vector>

#include "tests/fakes/fake_backend.hpp"
#include "tests/fakes/fake_machine.hpp"
#include "tests/fakes/fake_memory.hpp"
#include "tests/unit/vmm/loader/images.hpp"
#include "vmm/platform.hpp"
#include "vmm/vm_builder.hpp"

namespace bulkhead {

class RecordingSurroundings final : public Surroundings {
  public:
    void serial_output(u16, u8 character) override {
        output.push_back(static_cast<char>(character));
        if (on_output) on_output();
    }
    bool survives_machine_check(u16) override { return machine_checks_survived; }
    bool machine_checks_survived = false;
    void wake(u16, unsigned vcpu) override {
        const std::lock_guard guard(lock_);
        woken.push_back(vcpu);
    }

    [[nodiscard]] HostCause waiting_interrupt() const override { return waiting; }

    std::string output;
    std::vector<unsigned> woken;
    HostCause waiting = HostCause::device;
    std::function<void()> on_output;  // with the chips' lock held

  private:
    std::mutex lock_;
};

struct VmBench {
    static constexpr u64 ram_start = 16 * mib;
    static constexpr u64 code = 0x1000;  // where tests put the guest's instructions

    explicit VmBench(ApicAssist assist = ApicAssist::none, unsigned vcpus = 1, u64 memory = 8 * mib)
        : physical(ram_start + memory + 16 * mib), factory(machine, assist) {
        const UnitRun run{HostPhysical(ram_start), memory / large_page_size};
        const VmBlueprint blueprint{
            .number = 3, .vcpus = vcpus, .memory = memory, .ram = {&run, 1}, .window = physical.window()};
        const u64 arena_bytes = arena_bytes_for(blueprint);
        REQUIRE(arena_bytes <= 14 * mib);
        REQUIRE(arena.add({.base = physical.at(HostPhysical(2 * mib)),
                           .physical = HostPhysical(2 * mib),
                           .length = (arena_bytes + page_size - 1) / page_size * page_size}));
        auto built = build_virtual_machine(arena, blueprint, machine, factory, surroundings);
        REQUIRE(built);
        vm = *built;
        power_on();
    }

    void power_on() {
        const std::vector<u8> kernel = test::make_elf();
        const auto start = vm->power_on({.kernel = {kernel.data(), kernel.size()}});
        REQUIRE(start);
        for (unsigned i = 0; i < vm->vcpus().size(); ++i) {
            if (!cpu(i).loaded) cpu(i).load();
            vcpu(i).reset(i == 0 ? &*start : nullptr);
        }
        cpu().write(Register::rip, code);
    }

    [[nodiscard]] Vcpu& vcpu(unsigned i = 0) const { return *vm->vcpus()[i]; }
    [[nodiscard]] FakeBackend& cpu(unsigned i = 0) const { return *factory.backends[i]; }
    [[nodiscard]] LocalApic& apic(unsigned i = 0) const { return vcpu(i).apic(); }

    // Runs until the script is used up (and one turn more), the vCPU blocks, or the VM stops.
    Vcpu::RunResult run(unsigned i = 0) { return vcpu(i).run(machine.now + 1'000'000'000'000); }
    // One exit, and the entry after it.
    Vcpu::RunResult exit(const Exit& exit) {
        cpu().then(exit);
        const Vcpu::RunResult result = run();
        const bool turn_over = exit.reason == ExitReason::exception || exit.interrupted;
        return turn_over && result == Vcpu::RunResult::yielded ? run() : result;
    }
    Vcpu::RunResult exit(ExitReason reason, u8 length = 0) {
        Exit made(reason);
        made.instruction_length = length;
        return exit(made);
    }
    // What the entry after the last exit delivered.
    [[nodiscard]] const std::optional<Event>& injected(unsigned i = 0) const {
        return cpu(i).entries.back().injected;
    }
    [[nodiscard]] u64 rip(unsigned i = 0) const { return cpu(i).read(Register::rip); }
    [[nodiscard]] u64 reg(Register which) const { return cpu().read(which); }

    void put(u64 address, std::initializer_list<u8> bytes) const {
        REQUIRE(vm->memory().write(GuestPhysical(address), {bytes.begin(), bytes.size()}));
    }
    void put64(u64 address, u64 value) const {
        u8 bytes[8];
        std::memcpy(bytes, &value, sizeof bytes);
        REQUIRE(vm->memory().write(GuestPhysical(address), bytes));
    }
    [[nodiscard]] u8 byte_at(u64 address) const {
        u8 byte = 0;
        REQUIRE(vm->memory().read(GuestPhysical(address), {&byte, 1}));
        return byte;
    }

    // 64-bit mode, the first 4 GiB mapped one to one for kernel and user.
    void enter_long_mode(unsigned i = 0) const {
        put64(0x2000, 0x3007);
        for (u64 g = 0; g < 4; ++g) put64(0x3000 + 8 * g, g * gib | 0x87);
        FakeBackend& c = cpu(i);
        c.write(Register::cr4, cr4::pae);
        c.write(Register::cr3, 0x2000);
        c.write(Register::efer, efer::lme | efer::sce | efer::nxe);
        c.write(Register::cr0, cr0::pe | cr0::pg | cr0::et | cr0::wp | cr0::ne);
        c.set_segment(SegmentName::cs, {.selector = 0x10, .limit = ~0U, .access = 0xA09B});
    }
    void set_cpl(unsigned cpl) const {
        for (const SegmentName name : {SegmentName::cs, SegmentName::ss}) {
            Segment segment = cpu().segment(name);
            segment.access = static_cast<u16>(insert(segment.access, 6, 5, cpl));
            cpu().set_segment(name, segment);
        }
    }
    void enable_interrupts(bool on = true) const { cpu().set_flag(rflags::if_, on); }
    // The local APIC as a kernel sets it up: enabled, LINT0 masked.
    void enable_apic(unsigned i = 0) const {
        apic(i).write(apic::svr, 4, 0x1FF);
        apic(i).write(apic::lvt_lint0, 4, 0x10000);
    }

    FakeMachine machine;
    FakeMemory physical;
    FakeFactory factory;
    RecordingSurroundings surroundings;
    Arena arena;
    VirtualMachine* vm = nullptr;
};

}  // namespace bulkhead
