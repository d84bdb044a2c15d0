#include <catch2/catch.hpp>
#include <functional>

#include "arch/x86/regs/control.hpp"
#include "fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::svm;

namespace {

// A 64-bit guest in the middle of its work.
void make_long_mode(Bench& bench) {
    VmcbState& state = bench.vmcb.state;
    state.efer = efer::svme | efer::sce | efer::lme | efer::lma | efer::nxe;
    state.cr0 = cr0::pe | cr0::pg | cr0::et | cr0::wp | cr0::ne;
    state.cr4 = cr4::pae | cr4::pge;
    state.cr3 = 0x1000;
    state.cs.attributes = 0x29B;
    state.rip = 0xFFFF'FFFF'8100'0000;
}

struct Mutation {
    std::string field;  // as the report names it
    std::function<void(VmcbControl&, VmcbState&)> apply;
};

}  // namespace

TEST_CASE("The state after RESET and that of a 64-bit guest have nothing wrong with them") {
    Bench bench;
    CHECK(bench.violations().empty());
    make_long_mode(bench);
    CHECK(bench.violations().empty());
}

TEST_CASE("Each rule names its field and value, and nothing else is blamed") {
    Bench bench;
    make_long_mode(bench);
    const Mutation mutations[] = {
        {"EFER", [](auto&, auto& s) { s.efer &= ~efer::svme; }},
        {"EFER", [](auto&, auto& s) { s.efer |= bit(1); }},
        {"EFER", [](auto&, auto& s) { s.efer |= bit(63); }},
        {"CR0", [](auto&, auto& s) { s.cr0 |= cr0::nw; }},
        {"CR0", [](auto&, auto& s) { s.cr0 |= bit(32); }},
        {"CR0", [](auto&, auto& s) { s.cr0 &= ~cr0::pe; }},
        {"CR3", [](auto&, auto& s) { s.cr3 = bit(48); }},
        {"CR3", [](auto&, auto& s) { s.cr3 = bit(63); }},
        {"CR4", [](auto&, auto& s) { s.cr4 |= cr4::vmxe; }},
        {"CR4", [](auto&, auto& s) { s.cr4 |= bit(40); }},
        {"CR4", [](auto&, auto& s) { s.cr4 &= ~cr4::pae; }},
        {"DR6", [](auto&, auto& s) { s.dr6 |= bit(32); }},
        {"DR7", [](auto&, auto& s) { s.dr7 |= bit(63); }},
        {"CS attributes", [](auto&, auto& s) { s.cs.attributes |= 0x400; }},
        {"RIP", [](auto&, auto& s) { s.rip = 0x0000'8000'0000'0000; }},
        {"RIP", [](auto&, auto& s) { s.rip = 0xFFFF'7FFF'FFFF'FFFF; }},
        {"RFLAGS", [](auto&, auto& s) { s.rflags = 0; }},
        {"CPL", [](auto&, auto& s) { s.cpl = 4; }},
        {"intercepts", [](auto& c, auto&) { c.intercept_misc2 &= ~intercept2::vmrun; }},
        {"ASID", [](auto& c, auto&) { c.asid = 0; }},
        {"ASID", [](auto& c, auto&) { c.asid = full_capabilities.asid_count; }},
        {"IOPM_BASE_PA", [](auto& c, auto&) { c.iopm_base |= 0x10; }},
        {"IOPM_BASE_PA", [](auto& c, auto&) { c.iopm_base = bit(48); }},
        {"MSRPM_BASE_PA", [](auto& c, auto&) { c.msrpm_base |= 0x800; }},
        {"MSRPM_BASE_PA", [](auto& c, auto&) { c.msrpm_base = bit(52); }},
        {"N_CR3", [](auto& c, auto&) { c.nested_cr3 |= 1; }},
        {"N_CR3", [](auto& c, auto&) { c.nested_cr3 = bit(50); }},
        {"EVENTINJ", [](auto& c, auto&) { c.event_injection = event_info::valid | 1 << 8; }},
        {"EVENTINJ", [](auto& c, auto&) { c.event_injection = event_info::valid | 5 << 8; }},
        {"EVENTINJ", [](auto& c, auto&) { c.event_injection = event_info::valid | 3 << 8 | 2; }},
        {"EVENTINJ", [](auto& c, auto&) { c.event_injection = event_info::valid | 3 << 8 | 32; }},
    };
    for (const Mutation& mutation : mutations) {
        const auto copy = std::make_unique<Vmcb>(bench.vmcb);
        mutation.apply(copy->control, copy->state);
        const std::string text = bench.explain(*copy);
        CAPTURE(mutation.field, text);
        CHECK(text.rfind(mutation.field + " = 0x", 0) == 0);
        CHECK(text.find('\n') == text.size() - 1);
    }
}

TEST_CASE("What looks odd but is legal is not blamed") {
    Bench bench;
    make_long_mode(bench);
    const Mutation mutations[] = {
        {"cache disabled", [](auto&, auto& s) { s.cr0 |= cr0::cd | cr0::nw; }},
        {"highest lower-half RIP", [](auto&, auto& s) { s.rip = 0x0000'7FFF'FFFF'FFFF; }},
        {"lowest upper-half RIP", [](auto&, auto& s) { s.rip = 0xFFFF'8000'0000'0000; }},
        {"no event", [](auto& c, auto&) { c.event_injection = 0x7FFF'FFFF; }},
        {"an external interrupt", [](auto& c, auto&) { c.event_injection = event_info::valid | 0xFF; }},
        {"an NMI", [](auto& c, auto&) { c.event_injection = event_info::valid | 2 << 8 | 2; }},
        {"the last ASID", [](auto& c, auto&) { c.asid = full_capabilities.asid_count - 1; }},
        {"compatibility mode", [](auto&, auto& s) { s.cs.attributes = 0xC9B; }},
        {"user mode", [](auto&, auto& s) { s.cpl = 3; }},
    };
    for (const Mutation& mutation : mutations) {
        const auto copy = std::make_unique<Vmcb>(bench.vmcb);
        mutation.apply(copy->control, copy->state);
        CAPTURE(mutation.field);
        CHECK(bench.explain(*copy).empty());
    }
}

TEST_CASE("An empty VMCB breaks several rules at once, and each is told") {
    Bench bench;
    const auto empty = std::make_unique<Vmcb>();
    FixedString<2000> text;
    CHECK(explain_vmcb(*empty, full_capabilities, text) == 4);
    const std::string report(text.view());
    for (const char* field : {"EFER", "intercepts", "ASID", "RFLAGS"})
        CHECK(report.find(field) != std::string::npos);
}

TEST_CASE("The backend explains a refused entry, and says so when it finds nothing") {
    Bench bench;
    CHECK(bench.run(exit_code::invalid).reason == ExitReason::entry_failure);
    FixedString<500> nothing;
    bench.backend->explain(nothing);
    CHECK(std::string(nothing.view()).find("exit code 0xffffffffffffffff") == 0);
    bench.vmcb.control.asid = 0;
    FixedString<500> asid;
    bench.backend->explain(asid);
    CHECK(std::string(asid.view()) == "ASID = 0x0: 0 is the host's\n");
}
