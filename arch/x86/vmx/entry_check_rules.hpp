// What the three parts of the VM-entry checks share.
#pragma once

#include "arch/x86/vmx/entry_checks.hpp"
#include "arch/x86/vmx/vmcs_access.hpp"

namespace bulkhead::vmx {

// Collects violations; require() reads like the manual's sentence.
class EntryRules {
  public:
    EntryRules(const EntryCheckContext& context, EntryViolations& violations)
        : context_(context), violations_(violations) {}

    template <class T, vmcs::Access access>
    void require(bool condition, const vmcs::Field<T, access>& field, std::string_view rule) {
        if (condition) return;
        (void)violations_.push_back({field.name, rule, vmcs::to_raw(vmcs::read(field))});
    }

    [[nodiscard]] bool is_physical(u64 address) const { return (address >> context_.physical_bits) == 0; }
    [[nodiscard]] bool is_canonical(u64 address) const {
        const unsigned shift = 64 - context_.linear_bits;
        return static_cast<u64>(static_cast<i64>(address << shift) >> shift) == address;
    }

    void require_address(const vmcs::ReadWrite<HostPhysical>& field, u64 alignment) {
        const HostPhysical address = vmcs::read(field);
        require(address.is_aligned(alignment) && is_physical(address.raw()), field,
                alignment == page_size ? "must be 4-KByte aligned and within the physical-address width"
                                       : "must be 16-byte aligned and within the physical-address width");
    }
    template <vmcs::Access access>
    void require_canonical(const vmcs::Field<u64, access>& field) {
        require(is_canonical(vmcs::read(field)), field, "must be canonical");
    }
    template <vmcs::Access access>
    void require_pat(const vmcs::Field<u64, access>& field) {
        const u64 pat = vmcs::read(field);
        for (unsigned i = 0; i < 8; ++i) {
            const u64 type = extract(pat, 8 * i + 7, 8 * i);
            const bool valid = type <= 1 || (type >= 4 && type <= 7);
            require(valid, field, "each byte must be 0 (UC), 1 (WC), 4 (WT), 5 (WP), 6 (WB) or 7 (UC-)");
            if (!valid) return;
        }
    }
    void require_controls(const vmcs::ReadWrite<u32>& field, ControlRange range) {
        const u32 value = vmcs::read(field);
        require((range.must_be_one & ~value) == 0, field, "a control that the processor forces to 1 is 0");
        require(range.allows(value), field, "a control that the processor does not have is 1");
    }
    void require_fixed(const vmcs::ReadWrite<u64>& field, u64 fixed0, u64 fixed1) {
        const u64 value = vmcs::read(field);
        require((fixed0 & ~value) == 0, field, "a bit that VMX operation fixes to 1 is 0");
        require((value & ~fixed1) == 0, field, "a bit that VMX operation fixes to 0 is 1");
    }

  private:
    const EntryCheckContext& context_;
    EntryViolations& violations_;
};

}  // namespace bulkhead::vmx
