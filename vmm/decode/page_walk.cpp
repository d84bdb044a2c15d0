#include "vmm/decode/page_walk.hpp"

#include "arch/x86/regs/control.hpp"
#include "kernel/base/bits.hpp"

namespace bulkhead {
namespace {

constexpr u64 present = bit(0), writable = bit(1), user = bit(2), accessed = bit(5), dirty = bit(6),
              large = bit(7), no_execute = bit(63);
constexpr unsigned max_levels = 5;
// Times to start over when other processors change the entries under the walk.
constexpr unsigned max_attempts = 8;

// An entry that the translation used, for setting its flags afterwards.
struct Used {
    u64 address;
    u64 value;
    bool has_flags;  // PAE's PDPTEs have none
};

class Walk {
  public:
    Walk(PagingMemory& memory, const PagingState& state, GuestVirtual linear, PageAccess access)
        : memory_(memory), state_(state), linear_(linear.raw()), access_(access) {
        if (access_.implicit_supervisor) access_.user = false;
        pae_ = (state.cr4 & cr4::pae) != 0;
        long_mode_ = (state.efer & efer::lma) != 0;
        no_execute_enabled_ = pae_ && (state.efer & efer::nxe) != 0;
    }

    // The commonest case at a fraction of the price: long mode, every entry accessed already, a page of 4 KiB
    // or 2 MiB, the access allowed. Nothing where it is not so; attempt() then finds out what there is to do.
    [[nodiscard]] std::optional<GuestPhysical> quick() {
        const u64 address_mask = low_mask(state_.physical_bits) & ~low_mask(12);
        const u64 reserved =
            (low_mask(52) & ~low_mask(state_.physical_bits)) | (no_execute_enabled_ ? 0 : no_execute);
        u64 every = ~u64{0};  // bits set in all entries
        u64 some = 0;         // bits set in any
        u64 table = state_.cr3 & address_mask;
        for (int shift = (state_.cr4 & cr4::la57) != 0 ? 48 : 39;; shift -= 9) {
            u64 entry = 0;
            if (!memory_.read_physical(GuestPhysical(table + 8 * ((linear_ >> shift) & 0x1FF)), 8, entry))
                return std::nullopt;
            every &= entry;
            some |= entry;
            table = entry & address_mask;
            if (shift == 12 || (entry & large) != 0) {
                if (shift > 21 || (shift == 21 && (entry & low_mask(21) & ~low_mask(13)) != 0))
                    return std::nullopt;
                if (access_.write && (entry & dirty) == 0) return std::nullopt;
                if ((every & (present | accessed)) != (present | accessed) || (some & reserved) != 0)
                    return std::nullopt;
                if (check_permission((every & user) != 0, (every & writable) != 0, (some & no_execute) != 0))
                    return std::nullopt;
                const u64 offset = low_mask(static_cast<unsigned>(shift));
                return GuestPhysical((table & ~offset) | (linear_ & offset));
            }
            // A table may only be read where an entry says that there is one.
            if ((entry & present) == 0) return std::nullopt;
        }
    }
    [[nodiscard]] bool long_mode() const { return long_mode_; }

    // Nothing: the entries changed before their flags could be set.
    [[nodiscard]] std::optional<WalkResult> attempt() {
        count_ = 0;
        GuestPhysical page;
        const std::optional<u32> error = pae_ ? walk64(page) : walk32(page);
        if (error) return WalkResult{.status = WalkResult::Status::fault, .error_code = *error};
        if (!set_flags()) return std::nullopt;
        return WalkResult{.address = page};
    }

  private:
    using Fault = std::optional<u32>;

    [[nodiscard]] u32 error(u32 bits) const {
        using namespace page_fault_error;
        const bool fetch_reported = no_execute_enabled_ || (state_.cr4 & cr4::smep) != 0;
        return bits | (access_.write ? write : 0) | (access_.user ? page_fault_error::user : 0) |
               (access_.fetch && fetch_reported ? fetch : 0);
    }
    [[nodiscard]] u32 not_present() const { return error(0); }
    [[nodiscard]] u32 reserved_bits() const {
        return error(page_fault_error::present | page_fault_error::reserved);
    }

    [[nodiscard]] u64 read_entry(GuestPhysical address, unsigned size, bool has_flags = true) {
        u64 value = 0;
        if (!memory_.read_physical(address, size, value)) value = all_ones(size);
        used_[count_++] = {.address = address.raw(), .value = value, .has_flags = has_flags};
        return value;
    }

    [[nodiscard]] Fault check_permission(bool page_user, bool page_writable, bool page_no_execute) const {
        const bool write_protect = (state_.cr0 & cr0::wp) != 0;
        bool allowed = true;
        if (access_.user) {
            allowed = page_user && (!access_.write || page_writable);
        } else {
            if (access_.write && write_protect && !page_writable) allowed = false;
            if (page_user && access_.fetch && (state_.cr4 & cr4::smep) != 0) allowed = false;
            if (page_user && !access_.fetch && (state_.cr4 & cr4::smap) != 0 &&
                (!state_.ac || access_.implicit_supervisor))
                allowed = false;
        }
        if (access_.fetch && page_no_execute) allowed = false;
        if (allowed) return std::nullopt;
        return error(page_fault_error::present);
    }

    [[nodiscard]] Fault walk32(GuestPhysical& page) {
        const u64 directory = state_.cr3 & 0xFFFFF000;
        const u64 pde = read_entry(GuestPhysical(directory + 4 * extract(linear_, 31, 22)), 4);
        if ((pde & present) == 0) return not_present();
        if ((pde & large) != 0 && (state_.cr4 & cr4::pse) != 0) {
            // PSE-36: bits 13-20 are address bits 32-39, as far as the processor has them; bit 21 is
            // reserved.
            const unsigned high_bits = state_.physical_bits > 40 ? 8 : state_.physical_bits - 32u;
            if (extract(pde, 21, 13) >> high_bits != 0) return reserved_bits();
            page = GuestPhysical(extract(pde, 20, 13) << 32 | (pde & 0xFFC00000) | extract(linear_, 21, 0));
            return check_permission((pde & user) != 0, (pde & writable) != 0, false);
        }
        const u64 pte = read_entry(GuestPhysical((pde & 0xFFFFF000) + 4 * extract(linear_, 21, 12)), 4);
        if ((pte & present) == 0) return not_present();
        page = GuestPhysical((pte & 0xFFFFF000) | extract(linear_, 11, 0));
        return check_permission((pde & pte & user) != 0, (pde & pte & writable) != 0, false);
    }

    // PAE, 4-level and 5-level paging: entries of 8 bytes, 9 bits of the address a level.
    [[nodiscard]] Fault walk64(GuestPhysical& page) {
        const u64 address_mask = low_mask(state_.physical_bits) & ~low_mask(12);
        // Bits between MAXPHYADDR and 51, in PAE up to 62; bit 63 unless EFER.NXE gives it a meaning.
        const unsigned top = long_mode_ ? 52 : 63;
        const u64 high_reserved = low_mask(top) & ~low_mask(state_.physical_bits);
        const u64 always_reserved = high_reserved | (no_execute_enabled_ ? 0 : no_execute);

        u64 table = state_.cr3 & address_mask;
        unsigned level = long_mode_ ? ((state_.cr4 & cr4::la57) != 0 ? 5 : 4) : 2;
        if (!long_mode_) {
            const unsigned index = static_cast<unsigned>(extract(linear_, 31, 30));
            u64 pdpte = 0;
            if (state_.pdptes) {
                pdpte = (*state_.pdptes)[index];
            } else {
                pdpte = read_entry(GuestPhysical((state_.cr3 & 0xFFFFFFE0) + 8 * index), 8, false);
            }
            if ((pdpte & present) == 0) return not_present();
            constexpr u64 pdpte_reserved = 0x1E6 | no_execute;
            if (!state_.pdptes && (pdpte & (pdpte_reserved | high_reserved)) != 0) return reserved_bits();
            table = pdpte & address_mask;
        }

        bool page_user = true;
        bool page_writable = true;
        bool page_no_execute = false;
        for (;; --level) {
            const unsigned shift = 12 + 9 * (level - 1);
            const u64 entry = read_entry(GuestPhysical(table + 8 * ((linear_ >> shift) & 0x1FF)), 8);
            if ((entry & present) == 0) return not_present();
            const bool leaf = level == 1 || (entry & large) != 0;
            u64 reserved = always_reserved;
            if (level > 1 && leaf) {
                const bool exists = level == 2 || (level == 3 && state_.gigabyte_pages);
                // Bit 12 is the PAT bit of a large page; between it and the page's address nothing may be
                // set.
                reserved |= exists ? low_mask(shift) & ~low_mask(13) : large;
            }
            if ((entry & reserved) != 0) return reserved_bits();
            page_user = page_user && (entry & user) != 0;
            page_writable = page_writable && (entry & writable) != 0;
            page_no_execute = page_no_execute || (no_execute_enabled_ && (entry & no_execute) != 0);
            if (leaf) {
                page = GuestPhysical((entry & address_mask & ~low_mask(shift)) | (linear_ & low_mask(shift)));
                return check_permission(page_user, page_writable, page_no_execute);
            }
            table = entry & address_mask;
        }
    }

    // Sets accessed flags from the top down, and the leaf's dirty flag for a write. False if an entry is no
    // longer what the walk saw. Entries outside RAM keep what they have.
    [[nodiscard]] bool set_flags() {
        for (unsigned i = 0; i < count_; ++i) {
            Used& entry = used_[i];
            if (!entry.has_flags) continue;
            const bool leaf = i + 1 == count_;
            const u64 wanted = entry.value | accessed | (leaf && access_.write ? dirty : 0);
            if (wanted == entry.value) continue;
            const unsigned size = pae_ ? 8 : 4;
            if (memory_.compare_exchange(GuestPhysical(entry.address), size, entry.value, wanted) ==
                ExchangeResult::changed)
                return false;
        }
        return true;
    }

    PagingMemory& memory_;
    const PagingState& state_;
    u64 linear_;
    PageAccess access_;
    bool pae_ = false;
    bool long_mode_ = false;
    bool no_execute_enabled_ = false;
    unsigned count_ = 0;
    Used used_[max_levels];  // the first count_ of them
};

}  // namespace

WalkResult walk_pages(PagingMemory& memory, const PagingState& state, GuestVirtual linear,
                      PageAccess access) {
    if ((state.cr0 & cr0::pg) == 0) return {.address = GuestPhysical(linear.raw())};
    Walk walk(memory, state, linear, access);
    if (walk.long_mode()) {
        if (const auto address = walk.quick()) return {.address = *address};
    }
    for (unsigned i = 0; i < max_attempts; ++i) {
        if (const auto result = walk.attempt()) return *result;
    }
    return {.status = WalkResult::Status::contended};
}

}  // namespace bulkhead
