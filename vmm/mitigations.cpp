#include "vmm/mitigations.hpp"

namespace bulkhead {
namespace {

using Vendor = SpeculationFacts::Vendor;
using State = HazardReport::State;

namespace leaf7 {
constexpr u32 md_clear = bit<u32>(10), ibrs_ibpb = bit<u32>(26), stibp = bit<u32>(27),
              l1d_flush = bit<u32>(28);
}
namespace leaf7_2 {
constexpr u32 bhi_ctrl = bit<u32>(4);
}
namespace ext8 {
constexpr u32 ibpb = bit<u32>(12), ibrs = bit<u32>(14), stibp = bit<u32>(15), ibrs_always_on = bit<u32>(16),
              btc_no = bit<u32>(29);
}
namespace ext21 {
constexpr u32 verw_clear = bit<u32>(5), automatic_ibrs = bit<u32>(8), ibpb_branch_type = bit<u32>(28),
              srso_no = bit<u32>(29);
constexpr u32 ecx_tsa_sq_no = bit<u32>(1), ecx_tsa_l1_no = bit<u32>(2);
}  // namespace ext21
// IA32_ARCH_CAPABILITIES.
namespace arch {
constexpr u64 rdcl_no = bit(0), ibrs_all = bit(1), skip_l1d_flush = bit(3), ssb_no = bit(4), mds_no = bit(5),
              page_change_mc_no = bit(6), taa_no = bit(8), sbdr_ssdp_no = bit(13), fbsdp_no = bit(14),
              psdp_no = bit(15), fb_clear = bit(17), bhi_no = bit(20), pbrsb_no = bit(24), gds_ctrl = bit(25),
              gds_no = bit(26), rfds_no = bit(27), rfds_clear = bit(28), its_no = bit(62);
}
// IA32_SPEC_CTRL.
namespace spec_ctrl {
constexpr u64 ibrs = bit(0), stibp = bit(1), bhi_dis_s = bit(10);
}

constexpr u32 zen_1_and_2 = 0x17, hygon = 0x18, zen_3_and_4 = 0x19;

// The facts as answers.
class Processor {
  public:
    explicit Processor(const SpeculationFacts& facts) : f_(facts) {}

    [[nodiscard]] bool intel() const { return f_.vendor == Vendor::intel; }
    [[nodiscard]] bool amd() const { return f_.vendor == Vendor::amd; }
    [[nodiscard]] bool says(u64 bits) const { return intel() && (f_.architecture & bits) == bits; }

    [[nodiscard]] bool has_ibrs() const {
        return intel() ? (f_.leaf7_edx & leaf7::ibrs_ibpb) != 0 : amd() && (f_.ext8_ebx & ext8::ibrs) != 0;
    }
    [[nodiscard]] bool has_ibpb() const {
        return intel() ? (f_.leaf7_edx & leaf7::ibrs_ibpb) != 0 : amd() && (f_.ext8_ebx & ext8::ibpb) != 0;
    }
    [[nodiscard]] bool has_stibp() const {
        return intel() ? (f_.leaf7_edx & leaf7::stibp) != 0 : amd() && (f_.ext8_ebx & ext8::stibp) != 0;
    }
    [[nodiscard]] bool enhanced_ibrs() const { return has_ibrs() && says(arch::ibrs_all); }
    [[nodiscard]] bool automatic_ibrs() const { return amd() && (f_.ext21_eax & ext21::automatic_ibrs) != 0; }
    // IBRS may be set once and be left alone.
    [[nodiscard]] bool steady_ibrs() const {
        return enhanced_ibrs() || (amd() && has_ibrs() && (f_.ext8_ebx & ext8::ibrs_always_on) != 0);
    }

    // Branch type confusion (Retbleed): a return is predicted as any branch would be, whatever IBRS says.
    [[nodiscard]] bool type_confusion() const {
        return amd() && (f_.family == zen_1_and_2 || f_.family == hygon) && (f_.ext8_ebx & ext8::btc_no) == 0;
    }
    [[nodiscard]] bool return_overflow() const {  // SRSO, "Inception"
        return amd() && (f_.family == zen_1_and_2 || f_.family == hygon || f_.family == zen_3_and_4) &&
               (f_.ext21_eax & ext21::srso_no) == 0;
    }
    [[nodiscard]] bool history_injection() const { return intel() && !says(arch::bhi_no); }
    [[nodiscard]] bool controls_history() const { return (f_.leaf7_2_edx & leaf7_2::bhi_ctrl) != 0; }
    // Returns behind an exit may use what the guest pushed.
    [[nodiscard]] bool return_stack() const {
        if (amd()) return !automatic_ibrs();  // which clears it on each exit (AMD APM Vol. 2, 3.1.7)
        return !enhanced_ibrs() || !says(arch::pbrsb_no);
    }

    [[nodiscard]] bool l1tf() const { return intel() && !says(arch::rdcl_no) && !says(arch::skip_l1d_flush); }
    [[nodiscard]] bool can_flush_l1d() const { return (f_.leaf7_edx & leaf7::l1d_flush) != 0; }
    [[nodiscard]] bool mds() const { return intel() && !says(arch::mds_no); }
    [[nodiscard]] bool taa() const { return intel() && !says(arch::taa_no) && mds_clear(); }
    [[nodiscard]] bool mds_clear() const { return (f_.leaf7_edx & leaf7::md_clear) != 0; }
    [[nodiscard]] bool stale_mmio() const {
        return intel() && !says(arch::sbdr_ssdp_no | arch::fbsdp_no | arch::psdp_no);
    }
    [[nodiscard]] bool rfds() const { return says(arch::rfds_clear) && !says(arch::rfds_no); }
    [[nodiscard]] bool tsa() const {
        return amd() && f_.family == zen_3_and_4 &&
               (f_.ext21_ecx & (ext21::ecx_tsa_sq_no | ext21::ecx_tsa_l1_no)) !=
                   (ext21::ecx_tsa_sq_no | ext21::ecx_tsa_l1_no);
    }
    // VERW does more than it says in the manual of old.
    [[nodiscard]] bool verw_clears() const {
        return intel() ? mds_clear() || says(arch::fb_clear) || says(arch::rfds_clear)
                       : amd() && (f_.ext21_eax & ext21::verw_clear) != 0;
    }
    [[nodiscard]] bool needs_verw() const { return mds() || taa() || stale_mmio() || rfds() || tsa(); }

  private:
    const SpeculationFacts& f_;
};

constexpr u32 of(Barrier barrier) {
    return bit<u32>(static_cast<unsigned>(barrier));
}

}  // namespace

std::string_view name_of(Barrier barrier) {
    switch (barrier) {
        case Barrier::verw_on_entry: return "VERW at entry";
        case Barrier::spec_ctrl_on_entry: return "SPEC_CTRL at entry";
        case Barrier::spec_ctrl_on_exit: return "IBRS at exit";
        case Barrier::ibpb_on_exit: return "IBPB at exit";
        case Barrier::return_stack_on_exit: return "RSB fill at exit";
        case Barrier::branch_history_on_exit: return "BHB clear at exit";
        case Barrier::ibpb_on_switch: return "IBPB at change of guest";
        case Barrier::l1d_flush_on_switch: return "L1D flush at change of guest";
        case Barrier::count: break;
    }
    return "?";
}

std::string_view name_of(HazardReport::State state) {
    switch (state) {
        case State::not_affected: return "not affected";
        case State::mitigated: return "mitigated";
        case State::open: break;
    }
    return "open";
}

SpeculationFacts read_speculation_facts(const SpeculationLeaves& leaves) {
    SpeculationFacts facts;
    const CpuidResult& name = leaves.leaf0;
    // "GenuineIntel", "AuthenticAMD", "HygonGenuine": the first four characters tell them apart.
    if (name.ebx == 0x756E6547) facts.vendor = Vendor::intel;
    if (name.ebx == 0x68747541 || name.ebx == 0x6F677948) facts.vendor = Vendor::amd;
    const u32 signature = leaves.leaf1.eax;
    const u32 family = signature >> 8 & 0xF;
    facts.family = family == 0xF ? family + (signature >> 20 & 0xFF) : family;
    facts.model = signature >> 4 & 0xF;
    if (family == 6 || family == 0xF) facts.model |= signature >> 12 & 0xF0;
    facts.leaf7_edx = leaves.leaf7.edx;
    facts.leaf7_2_edx = leaves.leaf7_2.edx;
    facts.ext8_ebx = leaves.extended8.ebx;
    facts.ext21_eax = leaves.extended_21.eax;
    facts.ext21_ecx = leaves.extended_21.ecx;
    facts.architecture = leaves.architecture;
    const u32 threads =
        facts.vendor == Vendor::amd ? (leaves.extended_1e.ebx >> 8 & 0xFF) + 1 : leaves.topology.ebx & 0xFFFF;
    facts.threads_share_core = threads > 1;
    return facts;
}

Mitigations decide_mitigations(const SpeculationFacts& facts) {
    const Processor cpu(facts);
    Mitigations m;
    m.automatic_ibrs = cpu.automatic_ibrs();
    m.writes_spec_ctrl = cpu.has_ibrs() || cpu.has_stibp();

    if (cpu.steady_ibrs() && !m.automatic_ibrs) {
        m.host_spec_ctrl |= spec_ctrl::ibrs;
    } else if (cpu.has_ibrs() && !m.automatic_ibrs) {
        // Older processors want it set anew behind each exit, and guests run faster without.
        m.barriers |= of(Barrier::spec_ctrl_on_exit) | of(Barrier::spec_ctrl_on_entry);
    }
    // Enhanced IBRS keeps the other thread of the core out as well.
    if (cpu.has_stibp() && facts.threads_share_core && !cpu.enhanced_ibrs())
        m.host_spec_ctrl |= spec_ctrl::stibp;
    if (cpu.history_injection() && cpu.has_ibrs()) {
        if (cpu.controls_history()) {
            m.host_spec_ctrl |= spec_ctrl::bhi_dis_s;
        } else {
            m.barriers |= of(Barrier::branch_history_on_exit);
        }
    }
    m.guest_spec_ctrl = m.host_spec_ctrl;
    if (m.uses(Barrier::spec_ctrl_on_exit)) m.host_spec_ctrl |= spec_ctrl::ibrs;

    if (cpu.has_ibpb()) {
        m.barriers |= of(Barrier::ibpb_on_switch);
        // Where IBRS does not keep a guest's branches from the host's, or is not there.
        const bool no_ibrs = !cpu.has_ibrs() && !m.automatic_ibrs;
        if (cpu.type_confusion() || cpu.return_overflow() || no_ibrs) m.barriers |= of(Barrier::ibpb_on_exit);
    }
    // Without IBRS and IBPB filling the return stack would close one window of a house without doors.
    if (cpu.return_stack() && (cpu.has_ibrs() || cpu.has_ibpb()))
        m.barriers |= of(Barrier::return_stack_on_exit);
    if (cpu.needs_verw() && cpu.verw_clears()) m.barriers |= of(Barrier::verw_on_entry);
    if (cpu.l1tf() && cpu.can_flush_l1d()) m.barriers |= of(Barrier::l1d_flush_on_switch);
    return m;
}

HazardReports report_hazards(const SpeculationFacts& facts) {
    const Processor cpu(facts);
    const Mitigations m = decide_mitigations(facts);
    HazardReports reports;
    const auto add = [&](std::string_view hazard, bool affected, bool mitigated, std::string_view measure,
                         std::string_view missing) {
        const State state = !affected ? State::not_affected : mitigated ? State::mitigated : State::open;
        (void)reports.push_back({.hazard = hazard,
                                 .state = state,
                                 .measure = !affected   ? std::string_view("the processor says so")
                                            : mitigated ? measure
                                                        : missing});
    };
    constexpr std::string_view microcode = "update the microcode";

    (void)reports.push_back(
        {"Spectre v1", State::mitigated, "in host code no address leads to another VM's memory"});
    (void)reports.push_back({"Meltdown", State::not_affected, "guests never run on the host's page tables"});
    add("Spectre v2, guest to host", true,
        (m.host_spec_ctrl & spec_ctrl::ibrs) != 0 || m.automatic_ibrs || m.uses(Barrier::ibpb_on_exit),
        m.automatic_ibrs                     ? "automatic IBRS"
        : m.uses(Barrier::ibpb_on_exit)      ? "IBPB at exit"
        : m.uses(Barrier::spec_ctrl_on_exit) ? "IBRS set at exit"
                                             : "IBRS always on",
        "neither IBRS nor IBPB; update the microcode");
    add("Spectre v2, guest to guest", true, m.uses(Barrier::ibpb_on_switch), "IBPB at change of guest",
        "no IBPB; update the microcode");
    add("Return stack", cpu.return_stack(), m.uses(Barrier::return_stack_on_exit), "RSB fill at exit",
        microcode);
    add("Branch history injection", cpu.history_injection(),
        m.uses(Barrier::branch_history_on_exit) || (m.host_spec_ctrl & spec_ctrl::bhi_dis_s) != 0,
        cpu.controls_history() ? "BHI_DIS_S" : "BHB clear at exit", microcode);
    // Code that is not laid out for it stays open; Alder Lake and later, which control the history, have it
    // not.
    add("Indirect target selection",
        cpu.enhanced_ibrs() && !cpu.says(arch::its_no) && !cpu.controls_history(), false, {},
        "branches are not laid out against it");
    add("Retbleed", cpu.type_confusion() || (cpu.intel() && !cpu.enhanced_ibrs()),
        cpu.intel() ? m.uses(Barrier::spec_ctrl_on_exit) : m.uses(Barrier::ibpb_on_exit),
        cpu.intel() ? "IBRS set at exit" : "IBPB at exit", microcode);
    // Zen 1 and 2 forget everything at an IBPB; later ones only with the microcode that says so.
    const bool forgets = facts.family != zen_3_and_4 || (facts.ext21_eax & ext21::ibpb_branch_type) != 0;
    add("Return stack overflow", cpu.return_overflow(), m.uses(Barrier::ibpb_on_exit) && forgets,
        "IBPB at exit", "IBPB does not forget branch types; update the microcode");
    add("L1 terminal fault", cpu.l1tf(), m.uses(Barrier::l1d_flush_on_switch) && !facts.threads_share_core,
        "L1D flush at change of guest",
        m.uses(Barrier::l1d_flush_on_switch) ? "L1D flush at change of guest; turn SMT off" : microcode);
    const bool verw = m.uses(Barrier::verw_on_entry);
    add("Data sampling (MDS, TAA)", cpu.mds() || cpu.taa(), verw && !facts.threads_share_core,
        "VERW at entry", verw ? "VERW at entry; turn SMT off" : microcode);
    add("Stale data of MMIO", cpu.stale_mmio(), verw, "VERW at entry; no guest has a device", microcode);
    add("Register files (RFDS)", cpu.rfds(), verw, "VERW at entry", microcode);
    add("Transient scheduler (TSA)", cpu.tsa(), verw, "VERW at entry", microcode);
    add("Speculative store bypass", !cpu.says(arch::ssb_no), true,
        "no code of a guest's runs in the host; guests have no SSBD of their own", {});
    add("Gather data sampling", cpu.intel() && !cpu.says(arch::gds_no), cpu.says(arch::gds_ctrl),
        "by the microcode", microcode);
    add("Page-size change (XSA-304)", cpu.intel() && !cpu.says(arch::page_change_mc_no), false, {},
        "a guest can cause a machine check, which stops the machine");
    return reports;
}

}  // namespace bulkhead
