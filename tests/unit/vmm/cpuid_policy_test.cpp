#include "vmm/cpuid_policy.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <string>

#include "tests/unit/vmm/policy_bench.hpp"

using namespace bulkhead;

namespace {

CpuidPolicy build(const TablePhysicalMachine& machine, CpuidParameters parameters = {}) {
    if (parameters.tsc_hz == 0) parameters.tsc_hz = 2'400'000'000;
    CpuidPolicy policy;
    REQUIRE(policy.build(machine, parameters));
    return policy;
}

}  // namespace

TEST_CASE("vendor, model and brand are passed through") {
    const CpuidPolicy policy = build(intel_machine());
    REQUIRE(policy.vendor() == CpuVendor::intel);
    const CpuidResult zero = policy.lookup(0, 0, {});
    REQUIRE(zero.eax == 0x16);
    REQUIRE(zero.ebx == 0x756E6547);
    REQUIRE(policy.lookup(1, 0, {}).eax == 0x50654);
    REQUIRE(policy.lookup(0x80000002, 0, {}).eax == 0x65746E49);
    REQUIRE(policy.lookup(0x80000000, 0, {}).eax == 0x80000008);
    REQUIRE(build(amd_machine()).vendor() == CpuVendor::amd);
}

TEST_CASE("of a processor that has everything a guest sees the allow-lists and nothing else") {
    const CpuidPolicy policy = build(intel_machine(), {.vcpus = 2});
    const CpuidResult one = policy.lookup(1, 0, {});
    using namespace cpuid;
    for (const u32 hidden : {leaf1_ecx::vmx, leaf1_ecx::smx, leaf1_ecx::monitor, leaf1_ecx::dtes64,
                             leaf1_ecx::ds_cpl, leaf1_ecx::eist, leaf1_ecx::tm2, leaf1_ecx::pdcm,
                             leaf1_ecx::sdbg, leaf1_ecx::xtpr, leaf1_ecx::dca, leaf1_ecx::osxsave})
        REQUIRE((one.ecx & hidden) == 0);
    for (const u32 hidden : {leaf1_edx::psn, leaf1_edx::ds, leaf1_edx::acpi, leaf1_edx::tm, leaf1_edx::pbe})
        REQUIRE((one.edx & hidden) == 0);
    for (const u32 shown :
         {leaf1_ecx::sse3, leaf1_ecx::sse42, leaf1_ecx::avx, leaf1_ecx::aes, leaf1_ecx::xsave,
          leaf1_ecx::pcid, leaf1_ecx::x2apic, leaf1_ecx::tsc_deadline, leaf1_ecx::hypervisor})
        REQUIRE((one.ecx & shown) != 0);
    for (const u32 shown : {leaf1_edx::apic, leaf1_edx::mtrr, leaf1_edx::pat, leaf1_edx::sse2, leaf1_edx::htt,
                            leaf1_edx::mce, leaf1_edx::mca})
        REQUIRE((one.edx & shown) != 0);
    const CpuidResult seven = policy.lookup(7, 0, {});
    for (const u32 hidden : {leaf7_ebx::sgx, leaf7_ebx::hle, leaf7_ebx::rtm, leaf7_ebx::rdt_m,
                             leaf7_ebx::rdt_a, leaf7_ebx::mpx, leaf7_ebx::processor_trace})
        REQUIRE((seven.ebx & hidden) == 0);
    for (const u32 hidden : {leaf7_ecx::pku, leaf7_ecx::ospke, leaf7_ecx::waitpkg, leaf7_ecx::cet_ss,
                             leaf7_ecx::la57, leaf7_ecx::tme, leaf7_ecx::key_locker, leaf7_ecx::pks})
        REQUIRE((seven.ecx & hidden) == 0);
    REQUIRE((seven.edx & 0xFC000400) == 0);  // speculation controls, ARCH_CAPABILITIES, MD_CLEAR
    REQUIRE((seven.ebx & leaf7_ebx::avx512f) != 0);
    REQUIRE(seven.eax == 1);
    REQUIRE(policy.lookup(7, 2, {}) == CpuidResult{});
    REQUIRE(policy.lookup(6, 0, {}) == CpuidResult{4, 0, 0, 0});
    for (const u32 leaf : {3U, 5U, 8U, 9U, 0xAU, 0xCU, 0xFU, 0x10U, 0x12U, 0x14U})
        REQUIRE(policy.lookup(leaf, 0, {}) == CpuidResult{});
    REQUIRE(policy.lookup(0x80000007, 0, {}) == CpuidResult{0, 0, 0, 0x100});
    REQUIRE((policy.lookup(0x80000001, 0, {}).ecx & ext1_ecx::svm) == 0);
    REQUIRE(policy.lookup(0x80000008, 0, {}).eax == (46U | 48U << 8));
}

TEST_CASE("what the processor lacks the guest lacks, emulated features apart") {
    TablePhysicalMachine machine = intel_machine();
    machine.leaves[{1, 0}].ecx = 0;
    machine.leaves[{1, 0}].edx = cpuid::leaf1_edx::fpu;
    machine.leaves[{7, 0}] = {};
    const CpuidPolicy policy = build(machine, {.hypervisor = false});
    const CpuidResult one = policy.lookup(1, 0, {});
    REQUIRE(one.ecx == (cpuid::leaf1_ecx::x2apic | cpuid::leaf1_ecx::tsc_deadline));
    REQUIRE(one.edx == (cpuid::leaf1_edx::fpu | cpuid::leaf1_edx::apic | cpuid::leaf1_edx::mtrr));
    REQUIRE(policy.lookup(7, 0, {}) == CpuidResult{});
    REQUIRE(policy.lookup(0xD, 0, {}) == CpuidResult{});
    REQUIRE(policy.xcr0_mask() == 0);
    REQUIRE((policy.cr4_mask() & (cr4::osxsave | cr4::smep | cr4::pae | cr4::osfxsr)) == 0);
}

TEST_CASE("bits that mirror the guest's state follow it") {
    const CpuidPolicy policy = build(intel_machine());
    REQUIRE((policy.lookup(1, 0, {.cr4 = cr4::osxsave}).ecx & cpuid::leaf1_ecx::osxsave) != 0);
    REQUIRE((policy.lookup(1, 0, {.apic_enabled = false}).edx & cpuid::leaf1_edx::apic) == 0);
}

TEST_CASE("XSAVE sizes follow XCR0, standard and compacted") {
    const CpuidPolicy policy = build(intel_machine());
    const u64 all = 0xE7;
    REQUIRE(policy.xcr0_mask() == all);  // MPX and PKRU are hidden
    const CpuidResult zero = policy.lookup(0xD, 0, {.xcr0 = 1});
    REQUIRE(zero == CpuidResult{0xE7, 576, 2688, 0});
    REQUIRE(policy.lookup(0xD, 0, {.xcr0 = 7}).ebx == 832);
    REQUIRE(policy.lookup(0xD, 0, {.xcr0 = 0xE7}).ebx == 2688);
    REQUIRE(policy.lookup(0xD, 0, {.xcr0 = ~u64{0}}).ebx == 2688);
    REQUIRE(policy.lookup(0xD, 1, {.xcr0 = 1}) == CpuidResult{7, 576, 0, 0});
    REQUIRE(policy.lookup(0xD, 1, {.xcr0 = 7}).ebx == 832);
    REQUIRE(policy.lookup(0xD, 1, {.xcr0 = all}).ebx == 576 + 256 + 64 + 512 + 1024);
    REQUIRE(policy.lookup(0xD, 2, {}) == CpuidResult{256, 576, 0, 0});
    REQUIRE(policy.lookup(0xD, 3, {}) == CpuidResult{});
    REQUIRE(policy.lookup(0xD, 8, {}) == CpuidResult{});
    for (const u32 subleaf : {9U, 10U, 63U, 64U, 0xFFFFFFFFU})
        REQUIRE(policy.lookup(0xD, subleaf, {}) == CpuidResult{});
    REQUIRE((build(intel_machine(), {.xsaves = true}).lookup(0xD, 1, {}).eax & 8) != 0);
}

// The page walk of the emulator knows neither; what remains visible of one of them would make guests use it.
TEST_CASE("protection keys and CET are hidden in every place that tells of them") {
    for (const bool amd : {false, true}) {
        const CpuidPolicy policy =
            build(amd ? amd_machine() : intel_machine(), {.xsaves = true, .xcr0 = ~u64{0}});
        for (const u64 cr4 : {u64{0}, cr4::pke | cr4::pks | cr4::cet}) {
            const CpuidResult seven = policy.lookup(7, 0, {.cr4 = cr4});
            REQUIRE((seven.ecx & (cpuid::leaf7_ecx::pku | cpuid::leaf7_ecx::ospke | cpuid::leaf7_ecx::pks |
                                  cpuid::leaf7_ecx::cet_ss)) == 0);
            constexpr u32 cet_ibt = bit<u32>(20);
            REQUIRE((seven.edx & cet_ibt) == 0);
        }
        REQUIRE((policy.xcr0_mask() & xcr0::pkru) == 0);
        REQUIRE((policy.lookup(0xD, 0, {}).eax & xcr0::pkru) == 0);
        REQUIRE(policy.lookup(0xD, 1, {}).ecx == 0);  // IA32_XSS: neither CET_U nor CET_S
        for (const u32 component : {9U, 11U, 12U})
            REQUIRE(policy.lookup(0xD, component, {}) == CpuidResult{});
        REQUIRE((policy.cr4_mask() & (cr4::pke | cr4::pks | cr4::cet)) == 0);
    }
}

TEST_CASE("without AVX state nothing that needs it is shown") {
    const CpuidPolicy policy = build(intel_machine(), {.xcr0 = xcr0::x87 | xcr0::sse});
    REQUIRE(policy.xcr0_mask() == 3);
    REQUIRE((policy.lookup(1, 0, {}).ecx & (cpuid::leaf1_ecx::avx | cpuid::leaf1_ecx::fma)) == 0);
    REQUIRE((policy.lookup(7, 0, {}).ebx & (cpuid::leaf7_ebx::avx2 | cpuid::leaf7_ebx::avx512f)) == 0);
    REQUIRE((policy.lookup(7, 0, {}).ecx & cpuid::leaf7_ecx::vaes) == 0);
    REQUIRE(build(intel_machine(), {.xcr0 = 3 | xcr0::avx | xcr0::opmask}).xcr0_mask() == 7);
}

TEST_CASE("topology: IDs, counts and cache sharing agree for every number of processors") {
    for (const u32 vcpus : {1U, 2U, 3U, 4U, 6U, 16U, 64U}) {
        for (const u32 threads : {1U, 2U}) {
            if (vcpus % threads != 0) continue;
            for (u32 vcpu = 0; vcpu < vcpus; ++vcpu) {
                const CpuidParameters parameters{.vcpus = vcpus, .vcpu = vcpu, .threads_per_core = threads};
                const CpuidPolicy intel = build(intel_machine(), parameters);
                const u32 space = std::bit_ceil(vcpus);
                const CpuidResult one = intel.lookup(1, 0, {});
                REQUIRE(one.ebx >> 24 == vcpu);
                REQUIRE(((one.ebx >> 16) & 0xFF) == space);
                REQUIRE((one.ebx & 0xFFFF) == 0x5678);
                const CpuidResult smt = intel.lookup(0xB, 0, {}), core = intel.lookup(0xB, 1, {});
                REQUIRE(smt == CpuidResult{threads == 2 ? 1U : 0U, threads, 0x100, vcpu});
                REQUIRE(1U << core.eax == space);
                REQUIRE(core.ebx == vcpus);
                REQUIRE(core.ecx == 0x201);
                REQUIRE(core.edx == vcpu);
                REQUIRE(intel.lookup(0xB, 2, {}) == CpuidResult{0, 0, 2, vcpu});
                REQUIRE(intel.lookup(0xB, 0x1FF, {}) == CpuidResult{0, 0, 0xFF, vcpu});
                const CpuidResult l1 = intel.lookup(4, 0, {}), l3 = intel.lookup(4, 3, {});
                REQUIRE(((l1.eax >> 14) & 0xFFF) + 1 == threads);
                REQUIRE((l1.eax >> 26) + 1 == std::bit_ceil(vcpus / threads));
                REQUIRE(((l3.eax >> 14) & 0xFFF) + 1 == space);
                REQUIRE((l3.eax & 0x3FFF) == 0x163);
                REQUIRE(intel.lookup(4, 4, {}) == CpuidResult{});

                const CpuidPolicy amd = build(amd_machine(), parameters);
                REQUIRE(amd.lookup(0x8000001E, 0, {}) ==
                        CpuidResult{vcpu, vcpu / threads | (threads - 1) << 8, 0, 0});
                REQUIRE((amd.lookup(0x80000008, 0, {}).ecx & 0xFF) + 1 == vcpus);
                REQUIRE(1U << (amd.lookup(0x80000008, 0, {}).ecx >> 12) == space);
                REQUIRE((amd.lookup(0x8000001D, 2, {}).eax >> 14) + 1 == space);
                REQUIRE(amd.lookup(0x8000001D, 3, {}) == CpuidResult{});
                REQUIRE(amd.lookup(4, 0, {}) == CpuidResult{});
            }
        }
    }
    CpuidPolicy policy;
    REQUIRE_FALSE(policy.build(intel_machine(), {.vcpus = 65}));
    REQUIRE_FALSE(policy.build(intel_machine(), {.vcpus = 0}));
    REQUIRE_FALSE(policy.build(intel_machine(), {.vcpus = 2, .vcpu = 2}));
    REQUIRE_FALSE(policy.build(intel_machine(), {.vcpus = 3, .threads_per_core = 2}));
}

TEST_CASE("leaf 1Fh exists where the processor counts that far") {
    TablePhysicalMachine machine = intel_machine();
    machine.leaves[{0, 0}].eax = 0x20;
    const CpuidPolicy policy = build(machine, {.vcpus = 4, .vcpu = 3});
    REQUIRE(policy.lookup(0, 0, {}).eax == 0x1F);
    REQUIRE(policy.lookup(0x1F, 1, {}) == CpuidResult{2, 4, 0x201, 3});
    REQUIRE(policy.lookup(0x1B, 0, {}) == CpuidResult{});
}

TEST_CASE("a leaf out of range reads as each vendor has it") {
    const CpuidPolicy intel = build(intel_machine(), {.hypervisor_leaf = false});
    const CpuidResult highest = intel.lookup(0x16, 0, {});
    for (const u32 leaf :
         {0x17U, 0x3FFFFFFFU, 0x40000000U, 0x40000100U, 0x7FFFFFFFU, 0x80000009U, 0xFFFFFFFFU})
        REQUIRE(intel.lookup(leaf, 0, {}) == highest);
    const CpuidPolicy amd = build(amd_machine(), {.hypervisor_leaf = false});
    for (const u32 leaf : {0xEU, 0x40000000U, 0x80000022U, 0xFFFFFFFFU})
        REQUIRE(amd.lookup(leaf, 0, {}) == CpuidResult{});
    // In range and not on a list: zero. SVM, IBS, SEV among them.
    for (const u32 leaf : {0x80000009U, 0x8000000AU, 0x8000001BU, 0x8000001CU, 0x8000001FU})
        REQUIRE(amd.lookup(leaf, 0, {}) == CpuidResult{});
    REQUIRE(amd.lookup(0x80000021, 0, {}).eax == 0x44);
}

TEST_CASE("the hypervisor leaf names the hypervisor, and only where it is wanted") {
    const CpuidPolicy policy = build(intel_machine());
    const CpuidResult result = policy.lookup(0x40000000, 0, {});
    REQUIRE(result.eax == 0x40000000);
    std::string name;
    for (const u32 word : {result.ebx, result.ecx, result.edx})
        for (unsigned i = 0; i < 4; ++i) name += static_cast<char>(word >> (8 * i));
    REQUIRE(name == "BulkheadBulk");
    REQUIRE(policy.lookup(0x40000001, 0, {}) == CpuidResult{});
    REQUIRE(policy.lookup(0x40000100, 0, {}) == CpuidResult{});
    REQUIRE((build(intel_machine(), {.hypervisor = false}).lookup(1, 0, {}).ecx >> 31) == 0);
}

TEST_CASE("leaf 15h gives the TSC's frequency to the hertz wherever its fields can") {
    for (const u64 hz : {u64{1}, u64{999'999'937}, u64{2'400'000'000}, u64{2'399'999'873}, u64{0xFFFFFFFF},
                         u64{5'000'000'000}, u64{4'999'999'998}}) {
        const TscRatio ratio = tsc_ratio(hz);
        REQUIRE(ratio.error_hz == 0);
        REQUIRE(u64{ratio.crystal_hz} * ratio.numerator == hz * ratio.denominator);
    }
    REQUIRE(tsc_ratio(2'400'000'000).numerator == 1);
    const TscRatio odd = tsc_ratio(5'000'000'029);  // a prime above 2^32
    REQUIRE(u64{odd.crystal_hz} * odd.numerator + odd.error_hz == 5'000'000'029);
    REQUIRE(odd.error_hz == 1);
    const TscRatio ghz = tsc_ratio(2'893'202'000, 1'000'000'000);
    REQUIRE(ghz.crystal_hz == 1'000'000'000);
    REQUIRE(static_cast<u64>(static_cast<u128>(ghz.crystal_hz) * ghz.numerator / ghz.denominator) ==
            2'893'202'000);
    REQUIRE(tsc_ratio(0).denominator == 0);
    REQUIRE(tsc_ratio(~u64{0}).denominator == 0);
    REQUIRE(tsc_ratio(bit(38) - 1).denominator == 1);

    const CpuidPolicy policy = build(intel_machine(), {.tsc_hz = 2'893'202'117});
    REQUIRE(policy.lookup(0x15, 0, {}) == CpuidResult{1, 1, 2'893'202'117, 0});
    REQUIRE(policy.lookup(0x16, 0, {}).eax == 2893);
    // Even where the processor's CPUID ends before leaf 15h.
    TablePhysicalMachine haswell = intel_machine();
    haswell.leaves[{0, 0}].eax = 0xD;
    REQUIRE(build(haswell).lookup(0, 0, {}).eax == 0x16);
    REQUIRE(build(haswell).lookup(0x15, 0, {}).ecx == 2'400'000'000);
    REQUIRE(build(amd_machine()).lookup(0x15, 0, {}) == CpuidResult{});
}

TEST_CASE("no leaf and subleaf shows a bit of the physical processor that no list names") {
    // The tables above are full of ones; a leak would show as a word of ones.
    for (const bool amd : {false, true}) {
        const CpuidPolicy policy = build(amd ? amd_machine() : intel_machine(), {.vcpus = 4});
        for (const u32 base : {0U, 0x40000000U, 0x80000000U, 0xC0000000U})
            for (u32 leaf = 0; leaf < 0x120; ++leaf)
                for (const u32 subleaf : {0U, 1U, 2U, 3U, 9U, 0x80000000U}) {
                    const CpuidResult r = policy.lookup(base + leaf, subleaf, {});
                    for (const u32 word : {r.eax, r.ebx, r.ecx, r.edx}) REQUIRE(word != 0xFFFFFFFF);
                }
    }
}

TEST_CASE("the masks for CR4, EFER and XCR0 are those of the table") {
    const CpuidPolicy policy = build(intel_machine());
    REQUIRE((policy.cr4_mask() &
             (cr4::vmxe | cr4::smxe | cr4::la57 | cr4::pke | cr4::cet | cr4::pks | cr4::kl)) == 0);
    REQUIRE((policy.cr4_mask() & (cr4::pae | cr4::smep | cr4::smap | cr4::fsgsbase | cr4::pcide)) ==
            (cr4::pae | cr4::smep | cr4::smap | cr4::fsgsbase | cr4::pcide));
    REQUIRE(policy.efer_mask() == (efer::sce | efer::lme | efer::lma | efer::nxe));
    REQUIRE(build(amd_machine()).efer_mask() ==
            (efer::sce | efer::lme | efer::lma | efer::nxe | efer::ffxsr));
    const CpuidPolicy wide = build(intel_machine(), {.physical_bits = 40, .la57 = true});
    REQUIRE((wide.cr4_mask() & cr4::la57) != 0);
    REQUIRE(wide.linear_bits() == 57);
    REQUIRE(wide.physical_bits() == 40);
    REQUIRE(wide.lookup(0x80000008, 0, {}).eax == (40U | 57U << 8));
}

namespace {

unsigned count_order(u32 value) {
    return static_cast<unsigned>(std::bit_width(std::bit_ceil(value)) - 1);
}

// What Linux makes of it (arch/x86/kernel/cpu: topology.c, common.c, amd.c and cacheinfo.c of 6.1).
struct LinuxTopology {
    u32 apic_id = 0, package = 0, core = 0, siblings = 1, cores = 1;
};

// detect_extended_topology(): leaf 0Bh or 1Fh.
LinuxTopology by_extended_leaf(const CpuidPolicy& policy, u32 leaf) {
    const CpuidResult threads = policy.lookup(leaf, 0, {});
    REQUIRE(threads.ebx != 0);
    REQUIRE(((threads.ecx >> 8) & 0xFF) == 1);
    LinuxTopology found{.apic_id = threads.edx, .siblings = threads.ebx & 0xFFFF};
    const u32 thread_bits = threads.eax & 0x1F;
    u32 core_bits = thread_bits, package_bits = thread_bits, core_siblings = found.siblings;
    for (u32 level = 1;; ++level) {
        const CpuidResult result = policy.lookup(leaf, level, {});
        const u32 type = (result.ecx >> 8) & 0xFF;
        if (type == 0) break;
        REQUIRE((result.ecx & 0xFF) == level);
        if (type == 2) {
            core_siblings = result.ebx & 0xFFFF;
            core_bits = result.eax & 0x1F;
        }
        package_bits = result.eax & 0x1F;
    }
    found.core = (found.apic_id >> thread_bits) & ((1U << core_bits >> thread_bits) - 1);
    found.package = found.apic_id >> package_bits;
    found.cores = core_siblings / found.siblings;
    return found;
}

// detect_ht(): leaves 1 and 4, where there is no leaf 0Bh.
LinuxTopology by_legacy_leaves(const CpuidPolicy& policy) {
    const CpuidResult one = policy.lookup(1, 0, {});
    LinuxTopology found{.apic_id = one.ebx >> 24};
    found.cores = (policy.lookup(4, 0, {}).eax >> 26) + 1;
    if ((one.edx & cpuid::leaf1_edx::htt) == 0) return found;
    const u32 logical = (one.ebx >> 16) & 0xFF;
    found.package = found.apic_id >> count_order(logical);
    found.siblings = logical / found.cores;
    found.core = (found.apic_id >> count_order(found.siblings)) & ((1U << count_order(found.cores)) - 1);
    return found;
}

// amd_detect_cmp() and amd_get_topology(): 80000008h and 8000001Eh.
LinuxTopology by_amd_leaves(const CpuidPolicy& policy) {
    const CpuidResult sizes = policy.lookup(0x80000008, 0, {}), topology = policy.lookup(0x8000001E, 0, {});
    LinuxTopology found{.apic_id = policy.lookup(1, 0, {}).ebx >> 24};
    REQUIRE(topology.eax == found.apic_id);
    found.cores = (sizes.ecx & 0xFF) + 1;
    u32 bits = (sizes.ecx >> 12) & 0xF;
    if (bits == 0)
        while ((1U << bits) < found.cores) ++bits;
    found.package = found.apic_id >> bits;
    found.siblings = ((topology.ebx >> 8) & 0xFF) + 1;
    found.core = topology.ebx & 0xFF;
    found.cores /= found.siblings;
    REQUIRE((topology.ecx & 0xFF) == 0);          // node
    REQUIRE(((topology.ecx >> 8) & 7) + 1 == 1);  // nodes of the package
    return found;
}

// Of each cache level: the number that all processors sharing one have in common.
u32 cache_id(const CpuidResult& cache, u32 apic_id) {
    return apic_id >> count_order(1 + ((cache.eax >> 14) & 0xFFF));
}

}  // namespace

TEST_CASE("Linux finds one package of as many cores as there are vCPUs, each with one thread") {
    for (u32 vcpus = 1; vcpus <= 16; ++vcpus) {
        for (u32 vcpu = 0; vcpu < vcpus; ++vcpu) {
            CAPTURE(vcpus, vcpu);
            const CpuidParameters parameters{.vcpus = vcpus, .vcpu = vcpu};
            const auto check = [&](const LinuxTopology& found, u32 cores) {
                REQUIRE(found.apic_id == vcpu);
                REQUIRE(found.package == 0);
                REQUIRE(found.core == vcpu);
                REQUIRE(found.siblings == 1);
                REQUIRE(found.cores == cores);
            };
            TablePhysicalMachine new_intel = intel_machine();
            new_intel.leaves[{0, 0}].eax = 0x1F;
            const CpuidPolicy intel = build(new_intel, parameters);
            check(by_extended_leaf(intel, 0xB), vcpus);
            check(by_extended_leaf(intel, 0x1F), vcpus);
            // Leaf 4 counts the IDs that can be.
            check(by_legacy_leaves(intel), std::bit_ceil(vcpus));
            REQUIRE(((intel.lookup(1, 0, {}).edx & cpuid::leaf1_edx::htt) != 0) == (vcpus > 1));
            for (const u32 level : {0U, 1U, 2U}) REQUIRE(cache_id(intel.lookup(4, level, {}), vcpu) == vcpu);
            REQUIRE(cache_id(intel.lookup(4, 3, {}), vcpu) == 0);

            // A physical processor with a single core says nothing of multi-core legacy mode.
            TablePhysicalMachine single = amd_machine();
            single.leaves[{0x80000001, 0}].ecx &= ~cpuid::ext1_ecx::cmp_legacy;
            for (const TablePhysicalMachine& machine : {amd_machine(), single}) {
                const CpuidPolicy amd = build(machine, parameters);
                check(by_amd_leaves(amd), vcpus);
                // Without that bit Linux takes the logical processors of leaf 1 for threads.
                REQUIRE(((amd.lookup(0x80000001, 0, {}).ecx & cpuid::ext1_ecx::cmp_legacy) != 0) ==
                        (vcpus > 1));
                if (amd.lookup(0xB, 0, {}).ebx != 0) check(by_extended_leaf(amd, 0xB), vcpus);
                for (const u32 level : {0U, 1U})
                    REQUIRE(cache_id(amd.lookup(0x8000001D, level, {}), vcpu) == vcpu);
                REQUIRE(cache_id(amd.lookup(0x8000001D, 2, {}), vcpu) == 0);
            }
        }
    }
}
