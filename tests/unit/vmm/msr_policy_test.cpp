#include "vmm/msr_policy.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <set>

#include "tests/fakes/fake_clock.hpp"
#include "tests/unit/vmm/policy_bench.hpp"

using namespace bulkhead;

namespace {

struct NoBus final : InterruptBus {
    bool deliver(const InterruptMessage&) override { return false; }
    void broadcast_eoi(Vector) override {}
};

struct Bench {
    explicit Bench(bool amd = false, CpuidParameters parameters = {}) {
        if (parameters.tsc_hz == 0) parameters.tsc_hz = clock.hz();
        if (!policy.build(amd ? amd_machine() : intel_machine(), parameters)) throw "CPUID refused";
        state.microcode_revision = 0x2006E05;
        state.host_tsc_offset = 1'000'000;
        state.reset();
        backend.write(Register::pat, 0x0007040600070406);
    }

    std::optional<u64> read(u32 index) {
        const MsrResult result = read_msr(MsrIndex(index), context);
        if (result) return *result;
        REQUIRE(result.error() == make_general_protection());
        return std::nullopt;
    }
    bool write(u32 index, u64 value) {
        const MsrWritten result = write_msr(MsrIndex(index), value, context);
        if (result) return true;
        REQUIRE(result.error() == make_general_protection());
        return false;
    }

    alignas(4096) u8 page[4096] = {};
    FakeClock clock{2'400'000'000};
    NoBus bus;
    LocalApic apic{page, clock, bus, {.bootstrap = true}};
    RegisterBackend backend;
    CpuidPolicy policy;
    MsrState state;
    MsrContext context{backend, apic, policy, clock, state};
};

}  // namespace

TEST_CASE("every MSR that Linux touches while booting is there, on both vendors") {
    const u32 common_reads[] = {0x1B,  0x8B,  0xFE,  0x179, 0x17A, 0x200, 0x201, 0x20E,     0x20F,
                                0x250, 0x258, 0x259, 0x268, 0x26F, 0x277, 0x2FF, 0xC0000080};
    const u32 amd_reads[] = {0xC0010000, 0xC0010001, 0xC0010002, 0xC0010003, 0xC0010007,
                             0xC0010010, 0xC0010015, 0xC0010055, 0xC0011029, 0xC001001F};
    for (const bool amd : {false, true}) {
        Bench bench(amd);
        for (const u32 index : common_reads) {
            INFO(std::hex << index);
            REQUIRE(bench.read(index));
        }
        for (const u32 index : amd_reads) {
            INFO(std::hex << index);
            REQUIRE(bench.read(index).has_value() == amd);
        }
        for (const u32 index : {0x174U, 0x175U, 0x176U, 0xC0000080U, 0xC0000081U, 0xC0000082U, 0xC0000083U,
                                0xC0000084U, 0xC0000100U, 0xC0000101U, 0xC0000102U, 0xC0000103U})
            REQUIRE(bench.write(index, 0));
        if (amd) {
            for (const u32 index : {0xC0010007U, 0xC0010015U, 0xC0011029U}) {
                const u64 value = *bench.read(index);
                REQUIRE(bench.write(index, value | bit(1)));
                REQUIRE(bench.write(index, value));
            }
            REQUIRE((*bench.read(0xC0010015) & bit(24)) != 0);  // else Linux reports a firmware bug
            REQUIRE((*bench.read(0xC0011029) & bit(1)) != 0);
        } else {
            REQUIRE(bench.write(0x8B, 0));
            REQUIRE(*bench.read(0x8B) == u64{0x2006E05} << 32);
            REQUIRE(bench.read(0x1A0));
            REQUIRE(bench.write(0x1A0, *bench.read(0x1A0)));
        }
    }
}

TEST_CASE("of all indices only those on the list answer") {
    for (const bool amd : {false, true}) {
        Bench bench(amd);
        std::set<u32> known;
        // Where registers are, densely; the rest of the 2^32 sampled, with the edges of the bitmap ranges.
        for (u32 index = 0; index < 0x3000; ++index)
            if (bench.read(index)) known.insert(index);
        for (u32 index = 0xC0000000; index < 0xC0003000; ++index)
            if (bench.read(index)) known.insert(index);
        for (u32 index = 0xC0010000; index < 0xC0012000; ++index)
            if (bench.read(index)) known.insert(index);
        std::mt19937 random(3);
        for (int i = 0; i < 100'000; ++i) {
            const u32 index = random();
            if ((index < 0x3000) || (index >= 0xC0000000 && index < 0xC0012000)) continue;
            if (bench.read(index) || bench.write(index, random())) FAIL("an unknown MSR answers: " << index);
        }
        for (const u32 index : {0x1FFFU, 0x2000U, 0xBFFFFFFFU, 0xC0001FFFU, 0xC0002000U, 0xFFFFFFFFU,
                                0x40000000U, 0x4B564D00U}) {
            REQUIRE_FALSE(bench.read(index));
            REQUIRE_FALSE(bench.write(index, 0));
        }
        // Hidden on purpose: SPEC_CTRL, PRED_CMD, PMC0, ARCH_CAPABILITIES, FLUSH_CMD, MCG_CTL, PERFEVTSEL0,
        // RTIT, MC0_CTL, VMX, CET, PASID, XSS.
        for (const u32 index : {0x48U, 0x49U, 0xC1U, 0x10AU, 0x10BU, 0x17BU, 0x186U, 0x570U, 0x400U, 0x480U,
                                0x48CU, 0x6A0U, 0xD93U, 0xDA0U, 0xC0010114U, 0xC0010117U}) {
            REQUIRE(known.count(index) == 0);
            REQUIRE_FALSE(bench.write(index, 0));
            REQUIRE_FALSE(bench.write(index, ~u64{0}));
        }
        REQUIRE(known.size() < 80);
        for (u32 index = 0x800; index < 0x900; ++index) {  // the APIC is in xAPIC mode
            REQUIRE(known.count(index) == 0);
            REQUIRE_FALSE(bench.write(index, 0));
        }
    }
}

TEST_CASE("non-canonical bases and entry points are #GP and change nothing") {
    Bench bench;
    for (const u32 index :
         {0x175U, 0x176U, 0xC0000082U, 0xC0000083U, 0xC0000100U, 0xC0000101U, 0xC0000102U}) {
        REQUIRE(bench.write(index, 0xFFFF800000001000));
        for (const u64 bad : {u64{0x0000800000000000}, u64{0xFFFF7FFFFFFFFFFF}, bit(63), bit(47)})
            REQUIRE_FALSE(bench.write(index, bad));
        REQUIRE(bench.read(index) == 0xFFFF800000001000);
    }
    REQUIRE(bench.write(0x174, 0xFFFFFFFF00000010));
    REQUIRE(bench.read(0x174) == 0x10);
    REQUIRE(bench.write(0xC0000081, ~u64{0}));
    REQUIRE(bench.read(0xC0000081) == ~u64{0});
    REQUIRE(bench.write(0xC0000103, 0xFFFFFFFF));
    REQUIRE_FALSE(bench.write(0xC0000103, bit(32)));
    REQUIRE(bench.read(0xC0000103) == 0xFFFFFFFF);
}

TEST_CASE("EFER: reserved bits, SVME and LME under paging are #GP, LMA stays as it is") {
    Bench bench;
    for (const u64 bad : {efer::svme, efer::lmsle, efer::ffxsr, efer::tce, bit(1), bit(9), bit(16), bit(63)})
        REQUIRE_FALSE(bench.write(0xC0000080, bad));
    REQUIRE(bench.write(0xC0000080, efer::sce | efer::nxe | efer::lme));
    REQUIRE(bench.write(0xC0000080, efer::lme | efer::lma));  // LMA cannot be set
    REQUIRE(bench.read(0xC0000080) == efer::lme);
    bench.backend.write(Register::cr0, cr0::pg | cr0::pe);
    bench.backend.write(Register::efer, efer::lme | efer::lma);
    REQUIRE_FALSE(bench.write(0xC0000080, efer::lma));
    REQUIRE(bench.write(0xC0000080, efer::lme | efer::sce));
    REQUIRE(bench.read(0xC0000080) == (efer::lme | efer::lma | efer::sce));
    Bench amd(true);
    REQUIRE(amd.write(0xC0000080, efer::ffxsr));
    REQUIRE_FALSE(amd.write(0xC0000080, efer::svme));
}

TEST_CASE("FEATURE_CONTROL is locked with VMX off, microcode updates vanish, DEBUGCTL has no bits") {
    Bench bench;
    REQUIRE(bench.read(0x3A) == 1);
    REQUIRE_FALSE(bench.write(0x3A, 1));
    REQUIRE_FALSE(bench.write(0x3A, 5));
    REQUIRE(bench.write(0x79, 0xFFFF800012345678));
    REQUIRE_FALSE(bench.read(0x79));
    REQUIRE(bench.read(0x1D9) == 0);
    REQUIRE(bench.write(0x1D9, 0));
    for (unsigned n = 0; n < 64; ++n) REQUIRE_FALSE(bench.write(0x1D9, bit(n)));
    bench.state.debugctl_mask = 2;
    REQUIRE(bench.write(0x1D9, 2));
    REQUIRE(bench.read(0x1D9) == 2);
    REQUIRE_FALSE(bench.write(0x1D9, 3));
    Bench amd(true);
    REQUIRE_FALSE(amd.read(0x3A));
    REQUIRE(amd.write(0xC0010020, 0x1000));
    REQUIRE_FALSE(amd.read(0xC0010020));
    REQUIRE_FALSE(amd.write(0x79, 0));
    REQUIRE(amd.read(0x8B) == 0x2006E05);
}

TEST_CASE("the PAT takes defined types only") {
    Bench bench;
    REQUIRE(bench.read(0x277) == 0x0007040600070406);
    for (unsigned entry = 0; entry < 8; ++entry)
        for (u64 type = 0; type < 256; ++type) {
            const bool legal = type == 0 || type == 1 || (type >= 4 && type <= 7);
            REQUIRE(bench.write(0x277, type << (8 * entry)) == legal);
        }
}

TEST_CASE("MTRRs are checked as 12.11 says, kept, and refused where reserved") {
    Bench bench(false, {.physical_bits = 40});
    REQUIRE(bench.read(0xFE) == 0x508);
    REQUIRE_FALSE(bench.write(0xFE, 0));
    REQUIRE(bench.write(0x200, 0x0080000000 | 6));
    REQUIRE(bench.write(0x201, 0xFF80000000 | 0x800));
    REQUIRE(bench.read(0x200) == 0x0080000006);
    REQUIRE(bench.read(0x201) == 0xFF80000800);
    for (const u64 bad : {u64{2}, u64{3}, u64{7}, u64{8}, u64{0x100}, u64{0x800}, bit(40)})
        REQUIRE_FALSE(bench.write(0x20E, bad));
    for (const u64 bad : {u64{1}, u64{0x400}, bit(40), bit(63)}) REQUIRE_FALSE(bench.write(0x20F, bad));
    REQUIRE_FALSE(bench.read(0x210));
    for (const u32 index : {0x250U, 0x258U, 0x259U, 0x268U, 0x26FU}) {
        REQUIRE(bench.write(index, 0x0605040100060606));
        REQUIRE(bench.read(index) == 0x0605040100060606);
        REQUIRE_FALSE(bench.write(index, 0x0600000000000002));
        REQUIRE_FALSE(bench.write(index, 0x0700000000000000));
        bench.write(index, 0);
    }
    for (const u32 index : {0x251U, 0x257U, 0x25AU, 0x267U, 0x270U}) REQUIRE_FALSE(bench.read(index));
    REQUIRE(bench.write(0x26A, 0x0606060606060606));
    for (u32 index = 0x268; index <= 0x26F; ++index)
        REQUIRE(bench.read(index) == (index == 0x26A ? 0x0606060606060606 : 0));
    REQUIRE(bench.write(0x2FF, 0xC06));
    REQUIRE(bench.read(0x2FF) == 0xC06);
    for (const u64 bad : {u64{0xC02}, u64{0xC07}, u64{0x1000}, u64{0x100}, bit(63)})
        REQUIRE_FALSE(bench.write(0x2FF, bad));
    bench.state.reset();
    REQUIRE(bench.read(0x2FF) == 0);
}

TEST_CASE("writing the TSC or TSC_ADJUST moves this vCPU's offset, by the same amount in both") {
    Bench bench;
    bench.clock.ticks = 5'000;
    REQUIRE(bench.read(0x10) == 5'000);
    REQUIRE(bench.read(0x3B) == 0);
    REQUIRE(bench.write(0x10, 105'000));
    REQUIRE(bench.read(0x10) == 105'000);
    REQUIRE(bench.read(0x3B) == 100'000);
    REQUIRE(bench.backend.tsc_offset == 1'100'000);
    bench.clock.advance(7);
    REQUIRE(bench.read(0x10) == 105'007);
    REQUIRE(bench.write(0x3B, 0));
    REQUIRE(bench.read(0x10) == 5'007);
    REQUIRE(bench.backend.tsc_offset == 1'000'000);
    for (const u64 extreme : {u64{0}, ~u64{0}, bit(63)}) {
        REQUIRE(bench.write(0x10, extreme));
        REQUIRE(bench.read(0x10) == extreme);
        REQUIRE(bench.write(0x3B, extreme));
        REQUIRE(bench.read(0x3B) == extreme);
        REQUIRE(bench.read(0x10) == bench.clock.ticks + extreme);
    }
    REQUIRE(bench.clock.ticks == 5'007);
}

TEST_CASE("the TSC deadline goes to the timer in the guest's own TSC, and fires once when past") {
    Bench bench;
    bench.clock.ticks = 1'000;
    bench.apic.write(apic::svr, 4, 0x1FF);
    bench.apic.write(apic::lvt_timer, 4, 2U << 17 | 0x60);
    REQUIRE(bench.write(0x10, 1'000'000));
    REQUIRE(bench.write(0x6E0, 1'000'500));
    REQUIRE(bench.read(0x6E0) == 1'000'500);
    REQUIRE(bench.apic.deadline() == 1'500);
    REQUIRE(bench.write(0x6E0, 5));
    REQUIRE(bench.apic.acknowledge() == Vector(0x60));
    REQUIRE(bench.read(0x6E0) == 0);
    REQUIRE(bench.apic.deadline() == never);
    Bench without(false, {.tsc_deadline = false});
    REQUIRE_FALSE(without.read(0x6E0));
    REQUIRE_FALSE(without.write(0x6E0, 5));
}

TEST_CASE("IA32_APIC_BASE and the x2APIC's range go to the local APIC") {
    Bench bench;
    REQUIRE(bench.read(0x1B) == 0xFEE00900);
    REQUIRE_FALSE(bench.write(0x1B, 0xFEE00901));
    REQUIRE_FALSE(bench.read(0x802));
    REQUIRE(bench.write(0x1B, 0xFEE00D00));
    REQUIRE(bench.read(0x802) == 0);
    REQUIRE(bench.write(0x808, 0x30));
    REQUIRE(bench.apic.cr8() == 3);
    REQUIRE_FALSE(bench.write(0x808, 0x100));
    REQUIRE_FALSE(bench.read(0x8FF));
}

TEST_CASE("machine checks: no banks, a status that can be cleared") {
    Bench bench;
    REQUIRE(bench.read(0x179) == 0);
    REQUIRE_FALSE(bench.write(0x179, 0));
    REQUIRE(bench.write(0x17A, 0));
    REQUIRE_FALSE(bench.write(0x17A, 8));
    REQUIRE(bench.read(0) == 0);
    REQUIRE(bench.write(1, 0));
}

TEST_CASE("a processor without RDTSCP, RDPID or TSC_ADJUST lacks their registers") {
    TablePhysicalMachine machine = intel_machine();
    machine.leaves[{7, 0}] = {};
    machine.leaves[{0x80000001, 0}].edx &= ~cpuid::ext1_edx::rdtscp;
    Bench bench;
    REQUIRE(bench.policy.build(machine, {.tsc_hz = 1'000'000'000}));
    REQUIRE_FALSE(bench.read(0xC0000103));
    REQUIRE_FALSE(bench.write(0xC0000103, 1));
    REQUIRE_FALSE(bench.read(0x3B));
    REQUIRE_FALSE(bench.write(0x3B, 1));
}

TEST_CASE("what is passed through is also known to the table, with the same meaning") {
    Bench bench;
    for (const MsrIndex index : passthrough_msrs) {
        REQUIRE(bench.write(index.raw(), 0x12345678));
        REQUIRE(bench.read(index.raw()) == 0x12345678);
    }
    REQUIRE(bench.read(passthrough_with_rdtscp.raw()));
}
