// What a guest's CPUID says. Deny by default: a leaf that is not named reads as zero, a feature bit that is
// not on an allow-list is clear, whatever the physical processor has. Intel SDM Vol. 2A, CPUID (June 2023
// edition); AMD APM Vol. 3, appendix E (rev. 3.35).
//
// One policy per vCPU: a table made once, which a lookup indexes and patches with the few bits that follow
// the guest's own state.
#pragma once

#include <optional>

#include "arch/x86/regs/control.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "vmm/physical_machine.hpp"

namespace bulkhead {

enum class CpuVendor : u8 { intel, amd, other };  // Hygon counts as AMD

// How leaf 15h expresses a TSC frequency: crystal_hz * numerator / denominator.
struct TscRatio {
    u32 denominator = 0;
    u32 numerator = 0;
    u32 crystal_hz = 0;
    // By how much that misses the frequency asked for, in Hz, rounded up; 0 where it is exact.
    u64 error_hz = 0;
};

// With a crystal of `crystal_hz`, if that is not 0 and fits; else with the fastest one that fits: the TSC
// itself below 2^32 Hz, an exact divisor of it up to 1/64 above that, the half of it rounded down failing
// that. All zero but for the error where `tsc_hz` is 0 or 2^38 and more.
// Linux takes the crystal for the frequency of the local APIC's timer: give that chip the same number.
[[nodiscard]] TscRatio tsc_ratio(u64 tsc_hz, u64 crystal_hz = 0);

struct CpuidParameters {
    u32 vcpus = 1;  // 1..64; APIC IDs are 0..vcpus-1
    u32 vcpu = 0;   // whose policy this is; its APIC ID
    u32 threads_per_core = 1;
    u64 tsc_hz = 0;
    u64 timer_hz = 0;  // of the local APIC; 0: as tsc_ratio() chooses
    u8 physical_bits = 52;
    bool x2apic = true;
    bool tsc_deadline = true;
    bool hypervisor = true;       // leaf 1 ECX[31]
    bool hypervisor_leaf = true;  // 40000000h; else that range is like any other beyond the maximum
    bool monitor = false;
    bool la57 = false;
    bool xsaves = false;
    u64 xcr0 = xcr0::x87 | xcr0::sse | xcr0::avx | xcr0::avx512;  // at most these
};

// The part of the guest's state that CPUID shows.
struct CpuidState {
    u64 cr4 = 0;
    u64 xcr0 = xcr0::x87;
    u64 xss = 0;
    bool apic_enabled = true;
};

class CpuidPolicy {
  public:
    // A guest without FPU, or a count of vCPUs out of range, is refused.
    [[nodiscard]] Result<> build(const PhysicalMachine& machine, const CpuidParameters& parameters);

    [[nodiscard]] CpuidResult lookup(u32 leaf, u32 subleaf, const CpuidState& state) const;
    // What the leaf says where neither the subleaf nor the state matters, as with most; else null.
    [[nodiscard]] const CpuidResult* constant(u32 leaf) const {
        const Slot* slot = leaf < basic_slots                      ? &basic_[leaf]
                           : leaf - extended_base < extended_slots ? &extended_[leaf - extended_base]
                                                                   : nullptr;
        return slot != nullptr && slot->constant ? &entries_[slot->first].result : nullptr;
    }
    // False: lookup() does not look at the state, which costs something to read.
    [[nodiscard]] static constexpr bool may_depend_on_state(u32 leaf) {
        constexpr u32 xsave_leaf = 0xD;
        return leaf == 1 || (leaf >= xsave_leaf && leaf < extended_base);
    }

    // What the table allows elsewhere.
    [[nodiscard]] CpuVendor vendor() const { return vendor_; }
    [[nodiscard]] u64 cr4_mask() const { return cr4_mask_; }    // bits that may be set
    [[nodiscard]] u64 xcr0_mask() const { return xcr0_mask_; }  // 0: no XSAVE
    [[nodiscard]] u64 efer_mask() const { return efer_mask_; }
    [[nodiscard]] u8 physical_bits() const { return physical_bits_; }
    [[nodiscard]] u8 linear_bits() const { return linear_bits_; }
    [[nodiscard]] bool x2apic() const { return has_bit(leaf1().ecx, 21); }
    [[nodiscard]] bool tsc_deadline() const { return has_bit(leaf1().ecx, 24); }
    [[nodiscard]] bool monitor() const { return has_bit(leaf1().ecx, 3); }
    [[nodiscard]] bool rdtscp() const { return has_bit(extended(1).edx, 27); }
    [[nodiscard]] bool rdpid() const { return has_bit(leaf7().ecx, 22); }
    [[nodiscard]] bool invpcid() const { return has_bit(leaf7().ebx, 10); }
    [[nodiscard]] bool tsc_adjust() const { return has_bit(leaf7().ebx, 1); }
    [[nodiscard]] bool xsaves() const { return xsaves_; }
    [[nodiscard]] bool long_mode() const { return has_bit(extended(1).edx, 29); }
    [[nodiscard]] const TscRatio& ratio() const { return ratio_; }

  private:
    enum class Patch : u8 { none, leaf1, xsave, xsave_compact };
    struct Entry {
        CpuidResult result;
        Patch patch = Patch::none;
    };
    // Subleaf s of a leaf is entries_[first + s]; count 0: the leaf reads as zero.
    struct Slot {
        u8 first = 0;
        u8 count = 0;
        bool subleaves = false;  // else ECX does not matter
        bool constant = false;   // see constant()
    };

    static constexpr u32 basic_slots = 0x20, extended_slots = 0x22;
    static constexpr u32 extended_base = 0x80000000, hypervisor_base = 0x40000000;

    [[nodiscard]] const CpuidResult& first_of(const Slot& slot) const {
        return entries_[slot.count != 0 ? slot.first : 0].result;
    }
    [[nodiscard]] const CpuidResult& leaf1() const { return first_of(basic_[1]); }
    [[nodiscard]] const CpuidResult& leaf7() const { return first_of(basic_[7]); }
    [[nodiscard]] const CpuidResult& extended(u32 n) const { return first_of(extended_[n]); }
    void put(Slot& slot, const CpuidResult& result, Patch patch = Patch::none, bool subleaves = false);

    void clear();
    void build_vendor(const PhysicalMachine& machine);
    void build_features(const PhysicalMachine& machine);
    void build_caches(const PhysicalMachine& machine);
    void build_topology();
    void build_xsave(const PhysicalMachine& machine);
    void build_frequency();
    void build_extended(const PhysicalMachine& machine);
    void derive_masks();
    void mark_constant();
    [[nodiscard]] u32 xsave_size(u64 components) const;
    [[nodiscard]] u32 compact_size(u64 components) const;
    [[nodiscard]] CpuidResult patched(const Entry& entry, const CpuidState& state) const;
    [[nodiscard]] CpuidResult cache_level(CpuidResult physical, bool amd) const;

    // Index 0 is an all-zero entry, for leaves that are absent.
    FixedVector<Entry, 64> entries_;
    Slot basic_[basic_slots] = {};
    Slot extended_[extended_slots] = {};
    u32 max_basic_ = 0;
    u32 max_extended_ = 0;
    CpuidParameters parameters_;
    CpuVendor vendor_ = CpuVendor::other;
    TscRatio ratio_;
    bool xsaves_ = false;
    u8 physical_bits_ = 36;
    u8 linear_bits_ = 48;
    u64 cr4_mask_ = 0;
    u64 xcr0_mask_ = 0;
    u64 efer_mask_ = 0;
    // XSAVE components 0..15: where each lies in the standard format, and its size.
    struct Component {
        u32 offset = 0;
        u32 size = 0;
        bool aligned = false;  // on 64 bytes in the compacted format
    };
    Component components_[16] = {};
};

}  // namespace bulkhead
