#include "vmm/mitigations.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace bulkhead;

namespace {

using State = HazardReport::State;

// What CPUID and IA32_ARCH_CAPABILITIES of real processors say, with the microcode in the name.
SpeculationLeaves intel(u32 signature, u32 leaf7_edx, u64 architecture, u32 leaf7_2_edx = 0,
                        u32 threads = 1) {
    SpeculationLeaves leaves;
    leaves.leaf0 = {0x16, 0x756E6547, 0x6C65746E, 0x49656E69};
    leaves.leaf1.eax = signature;
    leaves.leaf7 = {.eax = 2, .edx = leaf7_edx};
    leaves.leaf7_2.edx = leaf7_2_edx;
    leaves.topology.ebx = threads;
    leaves.architecture = architecture;
    return leaves;
}
SpeculationLeaves amd(u32 signature, u32 ext8_ebx, u32 ext21_eax = 0, u32 ext21_ecx = 0, u32 threads = 1) {
    SpeculationLeaves leaves;
    leaves.leaf0 = {0xD, 0x68747541, 0x444D4163, 0x69746E65};
    leaves.leaf1.eax = signature;
    leaves.extended8.ebx = ext8_ebx;
    leaves.extended_1e.ebx = (threads - 1) << 8;
    leaves.extended_21.eax = ext21_eax;
    leaves.extended_21.ecx = ext21_ecx;
    return leaves;
}

constexpr u32 skylake_signature = 0x506E3, skylake_edx = 0xBC002E00;
constexpr u64 skylake_architecture = 0x2000C04;  // RSBA, GDS_CTRL
// RDCL_NO, IBRS_ALL, SKIP_L1DFL, MDS_NO, page-size change, TSX_CTRL, TAA_NO, FB_CLEAR, RRSBA, GDS_CTRL.
constexpr u64 ice_lake_architecture =
    bit(0) | bit(1) | bit(3) | bit(5) | bit(6) | bit(7) | bit(8) | bit(17) | bit(19) | bit(25);
constexpr u32 ice_lake_edx = 0xFC180400;
// The same, and no stale MMIO data, PBRSB_NO, GDS_NO; BHI_CTRL is in leaf 7.2.
constexpr u64 sapphire_rapids_architecture = bit(0) | bit(1) | bit(3) | bit(4) | bit(5) | bit(6) | bit(8) |
                                             bit(13) | bit(14) | bit(15) | bit(24) | bit(26) | bit(62);
constexpr u32 zen1_ext8 = 0x1007, zen3_ext8 = 0x111EF657;

SpeculationFacts facts_of(const SpeculationLeaves& leaves) {
    return read_speculation_facts(leaves);
}
Mitigations decide(const SpeculationLeaves& leaves) {
    return decide_mitigations(facts_of(leaves));
}
u32 bits(std::initializer_list<Barrier> barriers) {
    u32 result = 0;
    for (const Barrier barrier : barriers) result |= bit<u32>(static_cast<unsigned>(barrier));
    return result;
}
HazardReport report(const SpeculationLeaves& leaves, std::string_view hazard) {
    for (const HazardReport& each : report_hazards(facts_of(leaves))) {
        if (each.hazard == hazard) return each;
    }
    FAIL("no such hazard: " << hazard);
    return {};
}

}  // namespace

TEST_CASE("Vendor, family, model and threads are read as the manuals say") {
    const SpeculationFacts skylake = facts_of(intel(skylake_signature, 0, 0, 0, 2));
    CHECK(skylake.vendor == SpeculationFacts::Vendor::intel);
    CHECK(skylake.family == 6);
    CHECK(skylake.model == 0x5E);
    CHECK(skylake.threads_share_core);
    const SpeculationFacts zen3 = facts_of(amd(0xA20F10, 0));
    CHECK(zen3.vendor == SpeculationFacts::Vendor::amd);
    CHECK(zen3.family == 0x19);
    CHECK(zen3.model == 0x21);
    CHECK_FALSE(zen3.threads_share_core);
    CHECK(facts_of(amd(0xA20F10, 0, 0, 0, 2)).threads_share_core);
    CHECK(facts_of({}).vendor == SpeculationFacts::Vendor::other);
}

TEST_CASE("Skylake of 2015 without microcode has nothing to be told, and says what is open") {
    const SpeculationLeaves old = intel(skylake_signature, 0, 0);
    CHECK(decide(old) == Mitigations{});
    CHECK_FALSE(decide(old).at_world_switch());
    CHECK(report(old, "Spectre v2, guest to host").state == State::open);
    CHECK(report(old, "Spectre v2, guest to guest").state == State::open);
    CHECK(report(old, "L1 terminal fault").state == State::open);
    CHECK(report(old, "Data sampling (MDS, TAA)").state == State::open);
    CHECK(report(old, "Meltdown").state == State::not_affected);
    CHECK(report(old, "Register files (RFDS)").state == State::not_affected);
}

TEST_CASE("Skylake with microcode: IBRS around every guest, buffers and L1D flushed") {
    const SpeculationLeaves skylake = intel(skylake_signature, skylake_edx, skylake_architecture);
    const Mitigations m = decide(skylake);
    CHECK(m.barriers == bits({Barrier::verw_on_entry, Barrier::spec_ctrl_on_entry, Barrier::spec_ctrl_on_exit,
                              Barrier::return_stack_on_exit, Barrier::branch_history_on_exit,
                              Barrier::ibpb_on_switch, Barrier::l1d_flush_on_switch}));
    CHECK(m.at_world_switch());
    CHECK(m.writes_spec_ctrl);
    CHECK(m.host_spec_ctrl == 1);
    CHECK(m.guest_spec_ctrl == 0);
    for (const HazardReport& each : report_hazards(facts_of(skylake))) {
        INFO(std::string(each.hazard));
        CHECK((each.state == State::open) == (each.hazard == "Page-size change (XSA-304)"));
    }
}

TEST_CASE("Skylake with SMT keeps the other thread from the predictor, and cannot keep it from the caches") {
    const SpeculationLeaves skylake = intel(skylake_signature, skylake_edx, skylake_architecture, 0, 2);
    const Mitigations m = decide(skylake);
    CHECK(m.host_spec_ctrl == 3);
    CHECK(m.guest_spec_ctrl == 2);
    CHECK(report(skylake, "L1 terminal fault").state == State::open);
    CHECK(std::string(report(skylake, "Data sampling (MDS, TAA)").measure).find("SMT") != std::string::npos);
}

TEST_CASE("Ice Lake's IBRS stays on; VERW only for stale MMIO data, no L1D flush") {
    const SpeculationLeaves ice_lake = intel(0x606A6, ice_lake_edx, ice_lake_architecture, 0, 2);
    const Mitigations m = decide(ice_lake);
    CHECK(m.host_spec_ctrl == 1);
    CHECK(m.guest_spec_ctrl == 1);
    CHECK(m.barriers == bits({Barrier::verw_on_entry, Barrier::return_stack_on_exit,
                              Barrier::branch_history_on_exit, Barrier::ibpb_on_switch}));
    CHECK(report(ice_lake, "L1 terminal fault").state == State::not_affected);
    CHECK(report(ice_lake, "Data sampling (MDS, TAA)").state == State::not_affected);
    CHECK(report(ice_lake, "Stale data of MMIO").state == State::mitigated);
    CHECK(report(ice_lake, "Retbleed").state == State::not_affected);
    CHECK(report(ice_lake, "Indirect target selection").state == State::open);
}

TEST_CASE("Sapphire Rapids needs nothing at the world switch") {
    const SpeculationLeaves leaves =
        intel(0x806F8, ice_lake_edx, sapphire_rapids_architecture, bit<u32>(4), 2);
    const Mitigations m = decide(leaves);
    CHECK_FALSE(m.at_world_switch());
    CHECK(m.barriers == bits({Barrier::ibpb_on_switch}));
    CHECK(m.host_spec_ctrl == (bit(0) | bit(10)));
    CHECK(m.guest_spec_ctrl == m.host_spec_ctrl);
    for (const HazardReport& each : report_hazards(facts_of(leaves))) {
        INFO(std::string(each.hazard));
        CHECK(each.state != State::open);
    }
}

TEST_CASE("An Atom whose register files leak is cleared by VERW, once the microcode can") {
    // Gracemont: RFDS_CLEAR.
    const SpeculationLeaves with =
        intel(0xB06E0, ice_lake_edx, sapphire_rapids_architecture | bit(28), bit<u32>(4));
    CHECK(decide(with).uses(Barrier::verw_on_entry));
    CHECK(report(with, "Register files (RFDS)").state == State::mitigated);
    const SpeculationLeaves without =
        intel(0xB06E0, ice_lake_edx, sapphire_rapids_architecture | bit(27), bit<u32>(4));
    CHECK_FALSE(decide(without).uses(Barrier::verw_on_entry));
}

TEST_CASE("Zen 1 and 2 forget all predictions at each exit") {
    const SpeculationLeaves zen1 = amd(0x800F12, zen1_ext8);
    const Mitigations m = decide(zen1);
    CHECK(m.barriers ==
          bits({Barrier::ibpb_on_exit, Barrier::return_stack_on_exit, Barrier::ibpb_on_switch}));
    CHECK_FALSE(m.writes_spec_ctrl);
    CHECK(report(zen1, "Retbleed").state == State::mitigated);
    CHECK(report(zen1, "Return stack overflow").state == State::mitigated);
    CHECK(report(zen1, "L1 terminal fault").state == State::not_affected);
    // EPYC 7002: IBPB, IBRS, STIBP, SSBD and STIBP preferred.
    const SpeculationLeaves zen2 =
        amd(0x830F10, bit<u32>(12) | bit<u32>(14) | bit<u32>(15) | bit<u32>(24), 0, 0, 2);
    CHECK(decide(zen2).uses(Barrier::ibpb_on_exit));
    CHECK(decide(zen2).host_spec_ctrl == 3);
    CHECK(decide(zen2).guest_spec_ctrl == 2);
}

TEST_CASE("Zen 1 without microcode has no barrier, and says so") {
    const SpeculationLeaves old = amd(0x800F12, 7);
    CHECK(decide(old) == Mitigations{});
    CHECK(report(old, "Retbleed").state == State::open);
    CHECK(report(old, "Spectre v2, guest to host").state == State::open);
}

TEST_CASE("Zen 3: IBPB at exit against return stack overflow, complete only with the microcode for it") {
    const SpeculationLeaves before = amd(0xA20F10, zen3_ext8);
    CHECK(decide(before).uses(Barrier::ibpb_on_exit));
    CHECK(report(before, "Return stack overflow").state == State::open);
    CHECK(report(before, "Transient scheduler (TSA)").state == State::open);
    const SpeculationLeaves after = amd(0xA20F10, zen3_ext8, bit<u32>(28) | bit<u32>(5));
    CHECK(report(after, "Return stack overflow").state == State::mitigated);
    CHECK(report(after, "Transient scheduler (TSA)").state == State::mitigated);
    CHECK(decide(after).uses(Barrier::verw_on_entry));
    const SpeculationLeaves immune =
        amd(0xA20F10, zen3_ext8, bit<u32>(28) | bit<u32>(5), bit<u32>(1) | bit<u32>(2));
    CHECK_FALSE(decide(immune).uses(Barrier::verw_on_entry));
}

TEST_CASE("Zen 4 has automatic IBRS, which clears the return stack too") {
    const Mitigations m = decide(amd(0xA60F12, zen3_ext8, bit<u32>(8) | bit<u32>(28) | bit<u32>(5)));
    CHECK(m.automatic_ibrs);
    CHECK((m.host_spec_ctrl & 1) == 0);
    CHECK(m.barriers == bits({Barrier::verw_on_entry, Barrier::ibpb_on_exit, Barrier::ibpb_on_switch}));
    CHECK_FALSE(m.uses(Barrier::return_stack_on_exit));
}

TEST_CASE("Zen 5 needs nothing at the world switch") {
    const Mitigations m = decide(amd(0xB40F40, zen3_ext8, bit<u32>(8) | bit<u32>(28) | bit<u32>(5)));
    CHECK(m.automatic_ibrs);
    CHECK_FALSE(m.at_world_switch());
    CHECK(m.barriers == bits({Barrier::ibpb_on_switch}));
}

TEST_CASE("A processor of neither vendor is told nothing") {
    SpeculationLeaves leaves;
    leaves.leaf7.edx = ~0u & ~bit<u32>(28);
    leaves.extended8.ebx = leaves.extended_21.eax = ~0u;
    leaves.architecture = ~u64{0};
    const Mitigations m = decide(leaves);
    CHECK(m.barriers == 0);
    CHECK_FALSE(m.writes_spec_ctrl);
    CHECK_FALSE(m.automatic_ibrs);
}

TEST_CASE("No barrier is asked for that the processor does not have") {
    // Every single capability bit on its own.
    for (unsigned i = 0; i < 32; ++i) {
        for (const u32 signature : {skylake_signature, 0x606A6u, 0x806F8u}) {
            const Mitigations m = decide(intel(signature, bit<u32>(i), 0));
            if (i != 26)
                CHECK((m.barriers & ~bits({Barrier::verw_on_entry, Barrier::l1d_flush_on_switch})) == 0);
            if (i != 26 && i != 27) CHECK_FALSE(m.writes_spec_ctrl);
            CHECK(m.uses(Barrier::l1d_flush_on_switch) == (i == 28));
            CHECK(m.uses(Barrier::verw_on_entry) == (i == 10));
        }
        for (const u32 signature : {0x800F12u, 0x830F10u, 0xA20F10u, 0xA60F12u, 0xB40F40u}) {
            const Mitigations m = decide(amd(signature, bit<u32>(i)));
            if (i != 12) CHECK_FALSE((m.uses(Barrier::ibpb_on_switch) || m.uses(Barrier::ibpb_on_exit)));
            if (i != 14) CHECK_FALSE(m.uses(Barrier::spec_ctrl_on_exit));
            if (i != 14 && i != 15) CHECK_FALSE(m.writes_spec_ctrl);
        }
    }
}

TEST_CASE("Each hazard and each barrier has a name of its own, and there is room for all") {
    const HazardReports reports = report_hazards(facts_of(intel(skylake_signature, 0, 0)));
    CHECK(reports.size() == 17);
    for (usize i = 0; i < reports.size(); ++i) {
        CHECK_FALSE(reports[i].hazard.empty());
        CHECK_FALSE(reports[i].measure.empty());
        CHECK(reports[i].hazard.size() <= 27);
        for (usize j = 0; j < i; ++j) CHECK(reports[i].hazard != reports[j].hazard);
    }
    for (usize i = 0; i < barrier_count; ++i) {
        CHECK(name_of(static_cast<Barrier>(i)) != "?");
        for (usize j = 0; j < i; ++j)
            CHECK(name_of(static_cast<Barrier>(i)) != name_of(static_cast<Barrier>(j)));
    }
}
