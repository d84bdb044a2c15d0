#include "arch/x86/regs/control.hpp"
#include "arch/x86/svm/backend.hpp"

namespace bulkhead::svm {
namespace {

class Report {
  public:
    explicit Report(Sink& sink) : sink_(sink) {}

    void check(bool right, std::string_view field, u64 value, std::string_view rule) {
        if (right) return;
        print(sink_, "{} = {:#x}: {}\n", field, value, rule);
        ++count_;
    }
    [[nodiscard]] unsigned count() const { return count_; }

  private:
    Sink& sink_;
    unsigned count_ = 0;
};

constexpr bool canonical(u64 address) {
    return sign_extend(address << 16, 8) >> 16 == (address & low_mask(48)) &&
           (address >> 47 == 0 || address >> 47 == 0x1FFFF);
}

void check_event(u64 info, Report& report) {
    if ((info & event_info::valid) == 0) return;
    const u64 type = extract(info, 10, 8);
    const u64 vector = info & 0xFF;
    report.check(type == event_info::type_interrupt || type == event_info::type_nmi ||
                     type == event_info::type_exception || type == event_info::type_software,
                 "EVENTINJ", info, "reserved event type");
    if (type == event_info::type_exception) {
        report.check(vector != 2 && vector < 32, "EVENTINJ", info, "this vector is no exception");
    }
}

}  // namespace

// AMD APM Vol. 2, 15.5.1 "Canonicalization and consistency checks" (rev. 3.41).
unsigned explain_vmcb(const Vmcb& vmcb, const Capabilities& capabilities, Sink& sink) {
    const VmcbControl& control = vmcb.control;
    const VmcbState& state = vmcb.state;
    Report report(sink);
    const u64 reserved_physical = ~low_mask(capabilities.physical_address_bits);
    const bool paging = (state.cr0 & cr0::pg) != 0;
    const bool long_paging = paging && (state.efer & efer::lme) != 0;

    report.check((state.efer & efer::svme) != 0, "EFER", state.efer, "SVME must be set");
    constexpr u64 efer_defined = efer::sce | efer::lme | efer::lma | efer::nxe | efer::svme | efer::lmsle |
                                 efer::ffxsr | efer::tce | bit(17) | bit(18) | bit(20) | bit(21);
    report.check((state.efer & ~efer_defined) == 0, "EFER", state.efer, "reserved bits must be zero");
    report.check((state.cr0 & cr0::cd) != 0 || (state.cr0 & cr0::nw) == 0, "CR0", state.cr0,
                 "NW is set without CD");
    report.check(state.cr0 >> 32 == 0, "CR0", state.cr0, "bits 63:32 must be zero");
    report.check((state.cr3 & reserved_physical) == 0 || !long_paging, "CR3", state.cr3,
                 "bits above the physical address width must be zero");
    constexpr u64 cr4_defined = cr4::vme | cr4::pvi | cr4::tsd | cr4::de | cr4::pse | cr4::pae | cr4::mce |
                                cr4::pge | cr4::pce | cr4::osfxsr | cr4::osxmmexcpt | cr4::umip | cr4::la57 |
                                cr4::fsgsbase | cr4::pcide | cr4::osxsave | cr4::smep | cr4::smap | cr4::pke |
                                cr4::cet;
    report.check((state.cr4 & ~cr4_defined) == 0, "CR4", state.cr4, "reserved bits must be zero");
    report.check(state.dr6 >> 32 == 0, "DR6", state.dr6, "bits 63:32 must be zero");
    report.check(state.dr7 >> 32 == 0, "DR7", state.dr7, "bits 63:32 must be zero");
    report.check(!long_paging || (state.cr4 & cr4::pae) != 0, "CR4", state.cr4, "long mode needs PAE");
    report.check(!paging || (state.cr0 & cr0::pe) != 0, "CR0", state.cr0, "paging needs PE");
    constexpr u16 long_code = bit<u16>(9), big = bit<u16>(10);
    report.check(!(long_paging && (state.cr4 & cr4::pae) != 0 && (state.cs.attributes & long_code) != 0 &&
                   (state.cs.attributes & big) != 0),
                 "CS attributes", state.cs.attributes, "L and D are both set in long mode");
    report.check((control.intercept_misc2 & intercept2::vmrun) != 0, "intercepts", control.intercept_misc2,
                 "VMRUN must be intercepted");
    report.check(control.asid != 0, "ASID", control.asid, "0 is the host's");
    report.check(control.asid < capabilities.asid_count, "ASID", control.asid,
                 "beyond what the processor has");
    report.check((control.iopm_base & (reserved_physical | (page_size - 1))) == 0, "IOPM_BASE_PA",
                 control.iopm_base, "no page-aligned physical address");
    report.check((control.msrpm_base & (reserved_physical | (page_size - 1))) == 0, "MSRPM_BASE_PA",
                 control.msrpm_base, "no page-aligned physical address");
    report.check((control.nested_cr3 & (reserved_physical | (page_size - 1))) == 0, "N_CR3",
                 control.nested_cr3, "no page-aligned physical address");
    check_event(control.event_injection, report);
    // Not refused by VMRUN, yet no state that a processor can be in.
    report.check(canonical(state.rip) || (state.efer & efer::lma) == 0, "RIP", state.rip, "not canonical");
    report.check((state.rflags & rflags::reserved_one) != 0, "RFLAGS", state.rflags, "bit 1 must be set");
    report.check(state.cpl <= 3, "CPL", state.cpl, "beyond 3");
    return report.count();
}

}  // namespace bulkhead::svm
