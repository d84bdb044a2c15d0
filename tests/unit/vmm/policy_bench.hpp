// Physical machines as two real processors describe themselves, and a vCPU backend that is just registers.
#pragma once

#include <map>
#include <utility>

#include "vmm/physical_machine.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead {

class TablePhysicalMachine final : public PhysicalMachine {
  public:
    [[nodiscard]] CpuidResult cpuid(u32 leaf, u32 subleaf) const override {
        const auto at = leaves.find({leaf, subleaf});
        return at != leaves.end() ? at->second : CpuidResult{};
    }
    [[nodiscard]] u64 tsc() const override { return 0; }
    [[nodiscard]] u64 tsc_hz() const override { return 2'400'000'000; }
    [[nodiscard]] u64 wall_clock() const override { return 0; }

    std::map<std::pair<u32, u32>, CpuidResult> leaves;
};

// A Skylake-X class processor with everything on in the feature words, so that what a guest sees is what the
// allow-lists let through.
[[nodiscard]] inline TablePhysicalMachine intel_machine() {
    constexpr u32 ones = 0xFFFFFFFF;
    TablePhysicalMachine machine;
    auto& leaves = machine.leaves;
    leaves[{0, 0}] = {0x16, 0x756E6547, 0x6C65746E, 0x49656E69};
    leaves[{1, 0}] = {0x50654, 0x12345678, ones, ones};
    leaves[{2, 0}] = {0x76036301, 0x00F0B5FF, 0, 0x00C30000};
    leaves[{4, 0}] = {0x1C004121, 0x01C0003F, 0x3F, 0};
    leaves[{4, 1}] = {0x1C004122, 0x01C0003F, 0x3F, 0};
    leaves[{4, 2}] = {0x1C004143, 0x03C0003F, 0x3FF, 0};
    leaves[{4, 3}] = {0x1C03C163, 0x02C0003F, 0x4FFF, 6};
    leaves[{5, 0}] = {0x40, 0x40, 3, 0x2020};
    leaves[{6, 0}] = {ones, ones, ones, ones};
    leaves[{7, 0}] = {2, ones, ones, ones};
    leaves[{7, 1}] = {ones, ones, ones, ones};
    leaves[{7, 2}] = {ones, ones, ones, ones};
    leaves[{0xA, 0}] = {0x07300404, 0, 0, 0x603};
    leaves[{0xB, 0}] = {1, 2, 0x100, 42};
    leaves[{0xD, 0}] = {0x2FF, 0xA88, 0xA88, 0};
    leaves[{0xD, 1}] = {0x1F, 0xA08, 0x100, 0};
    leaves[{0xD, 2}] = {256, 576, 0, 0};
    leaves[{0xD, 3}] = {64, 960, 0, 0};
    leaves[{0xD, 4}] = {64, 1024, 0, 0};
    leaves[{0xD, 5}] = {64, 1088, 0, 0};
    leaves[{0xD, 6}] = {512, 1152, 0, 0};
    leaves[{0xD, 7}] = {1024, 1664, 0, 0};
    leaves[{0xD, 8}] = {128, 0, 1, 0};
    leaves[{0xD, 9}] = {8, 2688, 0, 0};
    leaves[{0x14, 0}] = {1, ones, ones, 0};
    leaves[{0x15, 0}] = {2, 200, 24'000'000, 0};
    leaves[{0x16, 0}] = {2400, 3700, 100, 0};
    leaves[{0x80000000, 0}] = {0x80000008, 0, 0, 0};
    leaves[{0x80000001, 0}] = {0, 0, ones, ones};
    leaves[{0x80000002, 0}] = {0x65746E49, 0x2952286C, 0x6F655820, 0x2952286E};
    leaves[{0x80000006, 0}] = {0, 0, 0x01006040, 0};
    leaves[{0x80000007, 0}] = {ones, ones, ones, ones};
    leaves[{0x80000008, 0}] = {46 | 48 << 8, ones, 0, 0};
    return machine;
}

[[nodiscard]] inline TablePhysicalMachine amd_machine() {
    constexpr u32 ones = 0xFFFFFFFF;
    TablePhysicalMachine machine = intel_machine();
    auto& leaves = machine.leaves;
    leaves[{0, 0}] = {0x10, 0x68747541, 0x444D4163, 0x69746E65};
    leaves[{1, 0}].eax = 0x800F12;
    leaves[{0x80000000, 0}] = {0x80000021, 0x68747541, 0x444D4163, 0x69746E65};
    leaves[{0x80000001, 0}] = {0x800F12, 0x40000000, ones, ones};
    leaves[{0x8000000A, 0}] = {1, 8, 0, ones};
    leaves[{0x80000019, 0}] = {0xF040F040, 0xF0400000, 0, 0};
    leaves[{0x8000001B, 0}] = {ones, 0, 0, 0};
    leaves[{0x8000001D, 0}] = {0x4121, 0x01C0003F, 0x3F, 0};
    leaves[{0x8000001D, 1}] = {0x4143, 0x01C0003F, 0x3FF, 2};
    leaves[{0x8000001D, 2}] = {0x1C163, 0x03C0003F, 0x1FFF, 1};
    leaves[{0x8000001E, 0}] = {9, 0x104, 1, 0};
    leaves[{0x8000001F, 0}] = {ones, ones, ones, ones};
    leaves[{0x80000021, 0}] = {ones, 0, 0, 0};
    return machine;
}

class RegisterBackend final : public VcpuBackend {
  public:
    u64 registers[static_cast<unsigned>(Register::count)] = {};
    u64 tsc_offset = 0;

    [[nodiscard]] u64 read(Register which) const override { return registers[static_cast<unsigned>(which)]; }
    void write(Register which, u64 value) override { registers[static_cast<unsigned>(which)] = value; }
    void set_tsc_offset(u64 offset) override { tsc_offset = offset; }

    [[nodiscard]] Exit run(u64) override { return Exit(ExitReason::spurious); }
    [[nodiscard]] Segment segment(SegmentName) const override { return {}; }
    void set_segment(SegmentName, const Segment&) override {}
    [[nodiscard]] DescriptorTable gdtr() const override { return {}; }
    [[nodiscard]] DescriptorTable idtr() const override { return {}; }
    void set_gdtr(const DescriptorTable&) override {}
    void set_idtr(const DescriptorTable&) override {}
    [[nodiscard]] Interruptibility interruptibility() const override { return {}; }
    void set_interruptibility(Interruptibility) override {}
    void inject(const Event&) override {}
    [[nodiscard]] bool injection_pending() const override { return false; }
    void cancel_injection() override {}
    void set_interrupt_window(bool) override {}
    void set_nmi_window(bool) override {}
    [[nodiscard]] ApicAssist apic_assist() const override { return ApicAssist::none; }
    void set_apic_mode(ApicMode) override {}
    void set_virtual_interrupt(u8, u8) override {}
    void set_eoi_exit(Vector, bool) override {}
    void set_tpr_threshold(u8) override {}
    [[nodiscard]] u8 cr8() const override { return 0; }
    void set_cr8(u8) override {}
    void flush_translations() override {}
    void reset() override {}
    void explain(Sink&) const override {}
    void load() override {}
    void save() override {}
    [[nodiscard]] u64 xcr0() const override { return 1; }
    void set_xcr0(u64) override {}
    [[nodiscard]] u64 debug_register(unsigned) const override { return 0; }
    void set_debug_register(unsigned, u64) override {}
};

}  // namespace bulkhead
