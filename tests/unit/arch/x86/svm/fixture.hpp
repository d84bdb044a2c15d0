// A backend over fake hardware, reset and loaded.
#pragma once

#include <catch2/catch.hpp>
#include <memory>
#include <string>

#include "arch/x86/svm/backend.hpp"
#include "fake_svm.hpp"
#include "tests/fakes/fake_extended_registers.hpp"

namespace bulkhead::svm {

// A processor with every feature that the backend makes use of, and one with none.
constexpr Capabilities full_capabilities{.asid_count = 32768,
                                         .physical_address_bits = 48,
                                         .next_rip = true,
                                         .decode_assists = true,
                                         .flush_by_asid = true,
                                         .clean_bits = true};
constexpr Capabilities bare_capabilities{.asid_count = 64, .physical_address_bits = 40};

struct alignas(4096) TestPages {
    Vmcb vmcb;
    u8 msr_permissions[0x2000] = {};
    u8 extended[ExtendedState::area_size] = {};
};

struct Bench {
    explicit Bench(const Capabilities& wanted = full_capabilities, bool intercept_cr4 = false,
                   bool guarded = false)
        : fake(new_fake_svm()),
          extended(new_fake_extended_registers()),
          capabilities(wanted),
          pages(std::make_unique<TestPages>()),
          vmcb(pages->vmcb) {
        fake.vmcb = &vmcb;
        fake.vmcb_physical = 0x2000;
        backend =
            std::make_unique<Backend>(Backend::Parameters{.capabilities = wanted,
                                                          .vmcb = &vmcb,
                                                          .vmcb_physical = HostPhysical(0x2000),
                                                          .io_permissions = HostPhysical(0x10000),
                                                          .msr_permissions = pages->msr_permissions,
                                                          .msr_permissions_physical = HostPhysical(0x20000),
                                                          .nested_root = HostPhysical(0x30000),
                                                          .extended_area = pages->extended,
                                                          .xcr0_supported = 7,
                                                          .asid = 5,
                                                          .intercept_cr4 = intercept_cr4,
                                                          .signature = 0x800F12,
                                                          .guarded = guarded});
        backend->reset();
        backend->load();
    }

    // Enters once; the guest leaves by `code`.
    Exit run(u64 code = exit_code::cpuid, u64 deadline = ~u64{0}) {
        fake.guest = [code](GeneralRegisters&, Vmcb& block) { block.control.exit_code = code; };
        return backend->run(deadline);
    }
    // As the last VMRUN found it.
    [[nodiscard]] const FakeSvm::Entry& entry() const { return fake.entries.back(); }

    [[nodiscard]] std::string violations() const { return explain(vmcb); }
    [[nodiscard]] std::string explain(const Vmcb& block) const {
        FixedString<4000> text;
        (void)explain_vmcb(block, capabilities, text);
        return std::string(text.view());
    }

    FakeSvm& fake;
    FakeExtendedRegisters& extended;
    Capabilities capabilities;
    std::unique_ptr<TestPages> pages;
    Vmcb& vmcb;
    std::unique_ptr<Backend> backend;
};

}  // namespace bulkhead::svm
