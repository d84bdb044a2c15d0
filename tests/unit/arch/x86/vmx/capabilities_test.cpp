#include "arch/x86/vmx/capabilities.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/control_registers.hpp"
#include "arch/x86/vmx/feature_control.hpp"
#include "machines.hpp"

using namespace bulkhead;
using namespace bulkhead::vmx;

namespace {

std::string error_of(const auto& result) {
    return std::string(result.error().text.view());
}

std::map<u32, u64> msr_values;
std::set<u32> msrs_read;
u64 read_fake_msr(u32 index) {
    msrs_read.insert(index);
    return msr_values.at(index);  // throws where a real processor raises #GP
}

}  // namespace

TEST_CASE("The emulated Skylake-X has everything") {
    const auto c = decide_capabilities(machines::skylake_x);
    REQUIRE(c.has_value());
    CHECK(c->revision == 0x2B);
    CHECK(c->instruction_information);
    CHECK(c->zero_length_injection);
    CHECK(c->preemption_timer_shift == 0);
    CHECK(c->cr3_targets == 4);
    CHECK((c->vpid && c->tpr_shadow && c->apic_access && c->apic_register && c->virtual_interrupts));
    CHECK((c->virtual_x2apic && c->preemption_timer && c->pml && c->xsaves && c->invpcid && c->rdtscp));
    CHECK((c->tsc_scaling && c->pause_loop && c->ept_2m && c->ept_1g && c->ept_accessed_dirty));
    CHECK((c->ept_execute_only && c->invept_single && c->invept_all && c->invvpid_single && c->invvpid_all));
    CHECK((c->full_xapic() && c->full_x2apic()));
}

TEST_CASE(
    "Virtual interrupts of a processor that is known for delivering them in spite of RFLAGS.IF are marked") {
    CapabilityMsrs msrs = machines::skylake_x;
    CHECK(decide_capabilities(msrs)->careless_virtual_interrupts);
    msrs.basic ^= 1;  // another revision
    CHECK_FALSE(decide_capabilities(msrs)->careless_virtual_interrupts);
    msrs.basic ^= 1 | bit(44) | bit(42);  // another size
    CHECK_FALSE(decide_capabilities(msrs)->careless_virtual_interrupts);
}

TEST_CASE("The emulated Haswell lacks what came later") {
    const auto c = decide_capabilities(machines::haswell);
    REQUIRE(c.has_value());
    CHECK_FALSE(c->xsaves);
    CHECK_FALSE(c->tsc_scaling);
    CHECK_FALSE(c->pml);
    CHECK_FALSE(c->zero_length_injection);
    CHECK(c->full_x2apic());
}

TEST_CASE("Without the preemption timer a guest could keep its core: refused, by name") {
    CapabilityMsrs msrs = machines::haswell;
    msrs.pinbased &= ~(bit(32) << 6);
    const auto c = decide_capabilities(msrs);
    REQUIRE_FALSE(c.has_value());
    CHECK(error_of(c).find("HV-E202: the processor lacks the VMX-preemption timer") == 0);
}

TEST_CASE("A Penryn is refused for want of EPT, by name") {
    const auto c = decide_capabilities(machines::penryn);
    REQUIRE_FALSE(c.has_value());
    CHECK(error_of(c).find("HV-E202") == 0);
    CHECK(error_of(c).find("lacks EPT (IA32_VMX_PROCBASED_CTLS2 bit 33)") != std::string::npos);
    CHECK_FALSE(c.error().text.truncated());
}

TEST_CASE("Each required control is named when it is missing") {
    struct Case {
        u64 CapabilityMsrs::*word;
        unsigned bit;
        const char* name;
    };
    for (const Case& missing : {Case{&CapabilityMsrs::pinbased, 32, "external-interrupt exiting"},
                                Case{&CapabilityMsrs::pinbased, 35, "NMI exiting"},
                                Case{&CapabilityMsrs::pinbased, 37, "virtual NMIs"},
                                Case{&CapabilityMsrs::procbased, 34, "interrupt-window exiting"},
                                Case{&CapabilityMsrs::procbased, 35, "TSC offsetting"},
                                Case{&CapabilityMsrs::procbased, 39, "HLT exiting"},
                                Case{&CapabilityMsrs::procbased, 54, "NMI-window exiting"},
                                Case{&CapabilityMsrs::procbased, 56, "unconditional I/O exiting"},
                                Case{&CapabilityMsrs::procbased, 60, "MSR bitmaps"},
                                Case{&CapabilityMsrs::procbased, 63, "secondary controls"},
                                Case{&CapabilityMsrs::procbased2, 39, "unrestricted guest"},
                                Case{&CapabilityMsrs::exit, 41, "64-bit hosts"},
                                Case{&CapabilityMsrs::exit, 50, "saving of IA32_PAT"},
                                Case{&CapabilityMsrs::exit, 53, "loading of IA32_EFER"},
                                Case{&CapabilityMsrs::entry, 41, "IA-32e mode guests"},
                                Case{&CapabilityMsrs::entry, 47, "loading of IA32_EFER"}}) {
        CapabilityMsrs msrs = machines::skylake_x;
        msrs.*missing.word &= ~bit(missing.bit);
        const auto c = decide_capabilities(msrs);
        INFO(missing.name);
        REQUIRE_FALSE(c.has_value());
        CHECK(error_of(c).find(missing.name) != std::string::npos);
        CHECK(error_of(c).find("bit " + std::to_string(missing.bit)) != std::string::npos);
        CHECK_FALSE(c.error().text.truncated());
    }
}

TEST_CASE("A control that cannot be used but is forced is refused") {
    CapabilityMsrs msrs = machines::skylake_x;
    msrs.exit |= vm_exit::acknowledge_interrupt;
    const auto c = decide_capabilities(msrs);
    REQUIRE_FALSE(c.has_value());
    CHECK(error_of(c).find("HV-E203") == 0);
}

TEST_CASE("VMCS size, memory type and address width are checked") {
    for (u64 basic : {u64{0x00D8'0000'0000'002B}, u64{0x00D8'1001'0000'002B}, u64{0x00C0'1000'0000'002B},
                      u64{0x00D9'1000'0000'002B}}) {
        CapabilityMsrs msrs = machines::skylake_x;
        msrs.basic = basic;
        const auto c = decide_capabilities(msrs);
        REQUIRE_FALSE(c.has_value());
        CHECK(error_of(c).find("HV-E204") == 0);
    }
}

TEST_CASE("EPT without four levels, write-back or INVEPT is refused") {
    for (unsigned bit_number : {6u, 14u, 20u}) {
        CapabilityMsrs msrs = machines::skylake_x;
        msrs.ept_vpid &= ~bit(bit_number);
        CHECK_FALSE(decide_capabilities(msrs).has_value());
    }
}

TEST_CASE("VPIDs that cannot be flushed are not used") {
    CapabilityMsrs msrs = machines::skylake_x;
    msrs.ept_vpid &= ~bit(32);
    const auto c = decide_capabilities(msrs);
    REQUIRE(c.has_value());
    CHECK_FALSE(c->vpid);
    CHECK((make_controls(*c, {}).secondary & secondary::enable_vpid) == 0);
}

TEST_CASE("Only the capability MSRs that exist are read") {
    msr_values = {{0x480, 0x00D8'1000'0000'002B},
                  {0x485, 0x600401E0},
                  {0x486, 0x80000021},
                  {0x487, 0xFFFFFFFF},
                  {0x488, 0x2000},
                  {0x489, 0x3727FF},
                  {0x48B, 0x02177FFF'00000000},
                  {0x48C, 0xF0106334141},
                  {0x48D, 0x7F'00000016},
                  {0x48E, 0xF7F9FFFE'04006172},
                  {0x48F, 0x7FFFFF'00036DFB},
                  {0x490, 0xFFFF'000011FB}};
    msrs_read.clear();
    const CapabilityMsrs msrs = read_capability_msrs(read_fake_msr);
    CHECK(msrs.procbased == machines::skylake_x.procbased);
    CHECK(msrs_read.contains(0x48E));
    CHECK_FALSE(msrs_read.contains(0x482));

    SECTION("no true controls, no secondary controls") {
        msr_values = {{0x480, 0x0058'1000'0000'002B},
                      {0x481, 0x3F'00000016},
                      {0x482, 0x77F9FFFE'0401E172},
                      {0x483, 0x3FFFF'00036DFF},
                      {0x484, 0x3FFF'000011FF},
                      {0x485, 0x401E0},
                      {0x486, 0x80000021},
                      {0x487, 0xFFFFFFFF},
                      {0x488, 0x2000},
                      {0x489, 0x467FF}};
        const CapabilityMsrs old = read_capability_msrs(read_fake_msr);
        CHECK(old.procbased2 == 0);
        CHECK(old.ept_vpid == 0);
        const auto c = decide_capabilities(old);
        REQUIRE_FALSE(c.has_value());
        CHECK(error_of(c).find("secondary controls") != std::string::npos);
    }
}

TEST_CASE("The control words respect the capabilities on every machine") {
    for (const CapabilityMsrs& msrs : {machines::skylake_x, machines::haswell}) {
        const auto c = decide_capabilities(msrs);
        REQUIRE(c.has_value());
        for (bool all : {false, true}) {
            const FeatureChoice choice{.vpid = all,
                                       .apic_virtualization = all,
                                       .preemption_timer = all,
                                       .pause_loop_exiting = all,
                                       .rdtscp = all,
                                       .invpcid = all,
                                       .xsaves = all};
            const Controls controls = make_controls(*c, choice);
            for (auto [word, range] : {std::pair{controls.pin, c->pin},
                                       {controls.primary, c->primary},
                                       {controls.secondary, c->secondary},
                                       {controls.exit, c->exit},
                                       {controls.entry, c->entry}}) {
                CHECK((range.must_be_one & ~word) == 0);
                CHECK(range.allows(word));
            }
        }
    }
}

TEST_CASE("The default controls of a Skylake-X are these") {
    const auto c = decide_capabilities(machines::skylake_x);
    REQUIRE(c.has_value());
    const Controls controls = make_controls(*c, {});
    // Nothing exits that need not: CR3, CR8, INVLPG, RDTSC, PAUSE, debug registers.
    CHECK((controls.primary &
           (primary::cr3_load_exiting | primary::cr3_store_exiting | primary::cr8_load_exiting |
            primary::cr8_store_exiting | primary::invlpg_exiting | primary::rdtsc_exiting |
            primary::pause_exiting | primary::mov_dr_exiting)) == 0);
    CHECK((controls.primary &
           (primary::hlt_exiting | primary::unconditional_io_exiting | primary::use_msr_bitmaps |
            primary::use_tpr_shadow | primary::use_tsc_offsetting)) ==
          (primary::hlt_exiting | primary::unconditional_io_exiting | primary::use_msr_bitmaps |
           primary::use_tpr_shadow | primary::use_tsc_offsetting));
    // The windows and the mode come and go; they start closed.
    CHECK((controls.primary & (primary::interrupt_window_exiting | primary::nmi_window_exiting)) == 0);
    CHECK((controls.entry & vm_entry::ia32e_mode_guest) == 0);
    CHECK((controls.secondary &
           (secondary::enable_ept | secondary::unrestricted_guest | secondary::enable_vpid |
            secondary::enable_rdtscp | secondary::enable_invpcid | secondary::wbinvd_exiting)) ==
          (secondary::enable_ept | secondary::unrestricted_guest | secondary::enable_vpid |
           secondary::enable_rdtscp | secondary::enable_invpcid | secondary::wbinvd_exiting));
    CHECK((controls.secondary & (secondary::enable_xsaves | secondary::enable_vm_functions |
                                 secondary::virtualize_apic_accesses | secondary::enable_pml)) == 0);
    CHECK((controls.exit & vm_exit::acknowledge_interrupt) == 0);
}

TEST_CASE("Without the TPR shadow CR8 exits") {
    const auto c = decide_capabilities(machines::skylake_x);
    REQUIRE(c.has_value());
    const Controls controls = make_controls(*c, {.apic_virtualization = false});
    CHECK((controls.primary & primary::use_tpr_shadow) == 0);
    CHECK((controls.primary & (primary::cr8_load_exiting | primary::cr8_store_exiting)) ==
          (primary::cr8_load_exiting | primary::cr8_store_exiting));
}

TEST_CASE("IA32_FEATURE_CONTROL: all eight states") {
    for (u64 value = 0; value < 8; ++value) {
        const auto decision = decide_feature_control(value);
        const bool locked = (value & 1) != 0, on = (value & 4) != 0;
        INFO(value);
        if (locked && !on) {
            REQUIRE_FALSE(decision.has_value());
            CHECK(error_of(decision).find("HV-E201") == 0);
            CHECK(error_of(decision).find("enable VT-x in the firmware setup") != std::string::npos);
        } else {
            REQUIRE(decision.has_value());
            CHECK(decision->write == !locked);
            if (!locked) CHECK(decision->value == (value | 5));
        }
    }
    // Other bits are firmware's: SENTER enables, SGX, LMCE.
    CHECK(decide_feature_control(0x10FF00 & ~u64{1})->value == (0x10FF00 | 5));
}

TEST_CASE("CPUID without VMX is refused") {
    CHECK(check_vmx_supported({.ecx = bit<u32>(5)}).has_value());
    CHECK(error_of(check_vmx_supported({.ecx = ~bit<u32>(5)})).find("HV-E200") == 0);
}

TEST_CASE("The guest owns the CR0 bits that systems toggle, the host those that matter to others") {
    const auto c = decide_capabilities(machines::skylake_x);
    REQUIRE(c.has_value());
    const auto cr0_split = cr0_ownership(*c);
    CHECK(cr0_split.host_owned == (cr0::cd | cr0::nw | cr0::ne));
    const u64 reset = cr0::et | cr0::cd | cr0::nw;
    CHECK(cr0_split.hardware_value(reset) == (cr0::et | cr0::ne));
    CHECK(cr0_split.guest_view(cr0::et | cr0::ne, reset) == reset);
    // What the guest changed on its own since shows; what it may not change does not.
    CHECK(cr0_split.guest_view(cr0::et | cr0::ne | cr0::wp | cr0::pe, reset) == (reset | cr0::wp | cr0::pe));

    const auto cr4_split =
        cr4_ownership(*c, cr4::pae | cr4::pge | cr4::mce | cr4::vmxe | cr4::la57 | cr4::smep);
    CHECK(cr4_split.host_owned == ~(cr4::pae | cr4::pge | cr4::smep));  // no LA57 on this machine
    CHECK(cr4_split.hardware_value(cr4::pae) == (cr4::pae | cr4::vmxe | cr4::mce));
    CHECK(cr4_split.guest_view(cr4::pae | cr4::vmxe | cr4::mce, 0) == cr4::pae);
}
