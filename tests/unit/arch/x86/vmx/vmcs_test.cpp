#include "arch/x86/vmx/vmcs_access.hpp"

#include <catch2/catch.hpp>

#include "fake_vmcs.hpp"

using namespace bulkhead;

namespace {

template <class F, class V>
concept Writable = requires(const F& field, V value) {
    vmcs::write(field, value);
};

using GuestRip = decltype(vmcs::guest_rip);
using ExitReasonField = decltype(vmcs::exit_reason);
using Vpid = decltype(vmcs::virtual_processor_identifier);
using ApicAddress = decltype(vmcs::virtual_apic_address);

// A value of the field's type, and nothing else.
static_assert(Writable<GuestRip, u64>);
static_assert(!Writable<GuestRip, u32>);
static_assert(!Writable<GuestRip, GuestRip>);
static_assert(!Writable<Vpid, u32>);
static_assert(Writable<Vpid, u16>);
static_assert(Writable<ApicAddress, HostPhysical>);
static_assert(!Writable<ApicAddress, GuestPhysical>);
static_assert(!Writable<ApicAddress, u64>);
// Read-only fields are not written.
static_assert(!Writable<ExitReasonField, u32>);
static_assert(!Writable<decltype(vmcs::exit_qualification), u64>);

}  // namespace

TEST_CASE("A field is read back as it was written, in its own width") {
    new_fake_vmx();
    vmcs::write(vmcs::guest_rip, u64{0xFFFF'8000'1234'5678});
    CHECK(vmcs::read(vmcs::guest_rip) == 0xFFFF'8000'1234'5678);
    vmcs::write(vmcs::virtual_apic_address, HostPhysical(0x1234000));
    CHECK(vmcs::read(vmcs::virtual_apic_address) == HostPhysical(0x1234000));
    vmcs::write(vmcs::virtual_processor_identifier, u16{0xFFFF});
    CHECK(vmcs::read(vmcs::virtual_processor_identifier) == 0xFFFF);
}

TEST_CASE("A refused VMWRITE says which field and why") {
    auto& fake = new_fake_vmx();
    fake.missing_fields.insert(vmcs::xss_exiting_bitmap.encoding);
    const auto result = vmcs::write_checked(vmcs::xss_exiting_bitmap, u64{0});
    REQUIRE_FALSE(result.has_value());
    const std::string text(result.error().text.view());
    CHECK(text.find("HV-E207") == 0);
    CHECK(text.find("XSS-exiting bitmap") != std::string::npos);
    CHECK(text.find("unsupported VMCS component") != std::string::npos);
}

TEST_CASE("VM-instruction errors have the manual's names") {
    CHECK(vm_instruction_error_name(7) == "VM entry with invalid control field(s)");
    CHECK(vm_instruction_error_name(8) == "VM entry with invalid host-state field(s)");
    CHECK(vm_instruction_error_name(26) == "VM entry with events blocked by MOV SS");
    CHECK(vm_instruction_error_name(14) == "unknown VM-instruction error");
    CHECK(vm_instruction_error_name(~0u) == "unknown VM-instruction error");
}
