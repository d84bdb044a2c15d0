// A backend over fake hardware, prepared and loaded.
#pragma once

#include <array>
#include <memory>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/backend.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/entry_checks.hpp"
#include "fake_vmcs.hpp"
#include "machines.hpp"
#include "tests/fakes/fake_extended_registers.hpp"

namespace bulkhead::vmx {

constexpr HostState test_host{.cr0 = 0x8001'0033,
                              .cr3 = 0x20'0000,
                              .cr4 = 0x1020F0,
                              .cs = 8,
                              .ss = 16,
                              .tr = 24,
                              .gs_base = 0xFFFF'FFFF'8000'1000,
                              .tr_base = 0xFFFF'FFFF'8000'2000,
                              .gdtr_base = 0xFFFF'FFFF'8000'3000,
                              .idtr_base = 0xFFFF'FFFF'8000'4000,
                              .rip = 0xFFFF'FFFF'8000'5000,
                              .efer = 0xD01,
                              .pat = 0x0007'0406'0007'0406};

// Guest CR4 bits as a present-day CPUID would announce them.
constexpr u64 test_cr4_bits = cr4::vme | cr4::pvi | cr4::tsd | cr4::de | cr4::pse | cr4::pae | cr4::mce |
                              cr4::pge | cr4::pce | cr4::osfxsr | cr4::osxmmexcpt | cr4::fsgsbase |
                              cr4::pcide | cr4::osxsave | cr4::smep | cr4::smap;

struct Bench {
    explicit Bench(const CapabilityMsrs& msrs = machines::skylake_x, FeatureChoice features = {},
                   HostPhysical access_page = HostPhysical(0x5000))
        : fake(new_fake_vmx()), capabilities(decide_capabilities(msrs).value()) {
        ram.resize(1 * mib);
        REQUIRE(
            memory.add({.start = GuestPhysical(0), .length = ram.size(), .host = ram.data()}).has_value());
        parameters = {.vmcs = {vmcs_page.data(), HostPhysical(0x2000)},
                      .virtual_apic = {apic_page.data(), HostPhysical(0x3000)},
                      .msr_bitmap = {bitmap_page.data(), HostPhysical(0x4000)},
                      .apic_access = access_page,
                      .nested_root = HostPhysical(0x6000),
                      .vpid = 17,
                      .guest_cr4_bits = test_cr4_bits,
                      .xcr0_components = 7,
                      .extended_state = extended_state.data(),
                      .processor_signature = 0x50654,
                      .features = features,
                      .memory = &memory};
        backend = std::make_unique<Backend>(capabilities, parameters);
        REQUIRE(backend->prepare(test_host).has_value());
        backend->load();
        fake.operations.clear();
    }

    [[nodiscard]] EntryViolations violations() const {
        EntryViolations found;
        const EntryCheckContext context{.capabilities = capabilities, .virtual_tpr = apic_page[0x80]};
        check_entry_controls(context, found);
        check_entry_host_state(context, found);
        check_entry_guest_state(context, found);
        return found;
    }
    [[nodiscard]] std::string violation_text() const {
        std::string text;
        for (const auto& v : violations()) text += std::string(v.field) + ": " + std::string(v.rule) + "\n";
        return text;
    }

    FakeVmx& fake;
    FakeExtendedRegisters& extended = fake_extended_registers();
    Capabilities capabilities;
    GuestMemory memory;
    std::vector<u8> ram;
    alignas(4096) std::array<u8, 4096> vmcs_page{}, apic_page{}, bitmap_page{}, extended_state{};
    VcpuParameters parameters;
    std::unique_ptr<Backend> backend;
};

}  // namespace bulkhead::vmx
