// The MSR bitmaps: a page of four 1 KiB bitmaps, one bit an MSR that exits. Everything exits unless named.
// Intel SDM Vol. 3C, 25.6.9 (June 2023 edition).
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead::vmx {

class MsrBitmap {
  public:
    // `page`: 4 KiB, the hardware's view.
    explicit MsrBitmap(u8* page) : page_(page) {}

    void intercept_all();
    // MSRs outside 0-1FFFh and C0000000h-C0001FFFh always exit: for these the call changes nothing.
    void set_read_exits(MsrIndex index, bool exits) { set(index, 0, exits); }
    void set_write_exits(MsrIndex index, bool exits) { set(index, write_offset, exits); }
    void set_exits(MsrIndex index, bool exits) {
        set_read_exits(index, exits);
        set_write_exits(index, exits);
    }
    [[nodiscard]] bool read_exits(MsrIndex index) const { return get(index, 0); }
    [[nodiscard]] bool write_exits(MsrIndex index) const { return get(index, write_offset); }

  private:
    static constexpr u32 write_offset = 0x800;

    void set(MsrIndex index, u32 offset, bool exits);
    [[nodiscard]] bool get(MsrIndex index, u32 offset) const;

    u8* page_;
};

// The MSRs that the guest owns outright: SYSCALL, SYSENTER, FS and GS bases, PAT (WRMSR itself refuses
// illegal values), reads of EFER and of the TSC, and of TSC_AUX where the guest has RDTSCP (`tsc_aux`).
void pass_through_guest_msrs(MsrBitmap& bitmap, bool tsc_aux);

// The x2APIC registers that hardware virtualises. full: reads of what lies in the virtual-APIC page, writes
// of TPR, EOI and self-IPI. Otherwise TPR alone, and only with `virtualized`.
void set_x2apic_exits(MsrBitmap& bitmap, bool virtualized, bool full);

}  // namespace bulkhead::vmx
