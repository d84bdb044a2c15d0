#include "arch/x86/svm/capabilities.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace bulkhead;
using namespace bulkhead::svm;

namespace {

// An EPYC of the Zen 2 generation, as it describes itself.
constexpr CapabilityLeaves epyc{.max_extended = 0x80000020,
                                .extended1 = {0x00830F10, 0x40000000, 0x75C237FF, 0x2FD3FBFF},
                                .address_sizes = {0x3030, 0x010EB757, 0x703F, 0},
                                .svm = {1, 0x8000, 0, 0x0013BCFF}};

std::string error_of(const CapabilityLeaves& leaves) {
    const auto result = read_capabilities(leaves);
    return result ? std::string() : std::string(result.error().text.view());
}

}  // namespace

TEST_CASE("A present-day processor's features are all found") {
    const auto found = read_capabilities(epyc);
    REQUIRE(found);
    CHECK(found->asid_count == 0x8000);
    CHECK(found->physical_address_bits == 48);
    CHECK(found->next_rip);
    CHECK(found->decode_assists);
    CHECK(found->flush_by_asid);
    CHECK(found->clean_bits);
    CHECK(found->virtual_gif);
    CHECK(found->pause_filter);
    CHECK(found->page_1gb);
    CHECK_FALSE(found->repeats_injections);
}

TEST_CASE("QEMU's emulation is known by its name") {
    CapabilityLeaves leaves = epyc;
    leaves.outer = {0x40000001, 0x54474354, 0x43544743, 0x47435447};  // TCGTCGTCGTCG
    CHECK(read_capabilities(leaves)->repeats_injections);
    leaves.outer = {0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D};  // KVMKVMKVM
    CHECK_FALSE(read_capabilities(leaves)->repeats_injections);
}

TEST_CASE("Each optional feature is one bit of its own") {
    struct Case {
        u32 bit;
        bool Capabilities::*member;
    };
    using namespace cpuid::svm_edx;
    constexpr Case cases[] = {
        {nrip_save, &Capabilities::next_rip},          {decode_assists, &Capabilities::decode_assists},
        {flush_by_asid, &Capabilities::flush_by_asid}, {vmcb_clean, &Capabilities::clean_bits},
        {virtual_gif, &Capabilities::virtual_gif},     {pause_filter, &Capabilities::pause_filter}};
    for (const Case& absent : cases) {
        CapabilityLeaves leaves = epyc;
        leaves.svm.edx &= ~absent.bit;
        const auto found = read_capabilities(leaves);
        REQUIRE(found);
        for (const Case& each : cases) CHECK((*found).*each.member == (each.member != absent.member));
    }
    CapabilityLeaves leaves = epyc;
    leaves.extended1.edx &= ~cpuid::ext1_edx::page1gb;
    CHECK_FALSE(read_capabilities(leaves)->page_1gb);
}

TEST_CASE("A missing requirement is named, with its CPUID bit and its number") {
    CapabilityLeaves no_svm = epyc;
    no_svm.extended1.ecx &= ~cpuid::ext1_ecx::svm;
    CHECK(error_of(no_svm).find("HV-E220") == 0);
    CHECK(error_of(no_svm).find("80000001h ECX bit 2") != std::string::npos);

    // The bit is set, yet the leaf that describes AMD-V is beyond what the processor has.
    CapabilityLeaves no_leaf = epyc;
    no_leaf.max_extended = 0x80000008;
    CHECK(error_of(no_leaf).find("HV-E220") == 0);

    CapabilityLeaves no_paging = epyc;
    no_paging.svm.edx &= ~cpuid::svm_edx::nested_paging;
    CHECK(error_of(no_paging).find("HV-E221") == 0);
    CHECK(error_of(no_paging).find("nested paging") != std::string::npos);

    for (const u32 count : {0U, 1U}) {
        CapabilityLeaves no_asid = epyc;
        no_asid.svm.ebx = count;
        CHECK(error_of(no_asid).find("HV-E222") == 0);
        CHECK(error_of(no_asid).find("offers " + std::to_string(count)) != std::string::npos);
    }
    CapabilityLeaves two = epyc;
    two.svm.ebx = 2;
    CHECK(error_of(two).empty());
}

TEST_CASE("Without an address-size leaf physical addresses have 36 bits") {
    CapabilityLeaves leaves = epyc;
    leaves.address_sizes = {};
    CHECK(read_capabilities(leaves)->physical_address_bits == 36);
}

TEST_CASE("VM_CR: enabled, disabled but open, disabled and locked") {
    constexpr u64 lock = bit(3), svm_disable = bit(4), r_init = bit(1);
    CHECK(decide_vm_cr(0).value() == 0);
    CHECK(decide_vm_cr(lock).value() == lock);
    CHECK(decide_vm_cr(r_init).value() == r_init);
    CHECK(decide_vm_cr(svm_disable | r_init).value() == r_init);
    const auto refused = decide_vm_cr(svm_disable | lock);
    REQUIRE_FALSE(refused);
    CHECK(std::string(refused.error().text.view()).find("HV-E223") == 0);
    CHECK_FALSE(refused.error().text.truncated());
}
