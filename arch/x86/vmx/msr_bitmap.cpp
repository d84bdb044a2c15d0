#include "arch/x86/vmx/msr_bitmap.hpp"

#include <cstring>
#include <initializer_list>

#include "arch/x86/regs/apic.hpp"
#include "arch/x86/regs/msr.hpp"

namespace bulkhead::vmx {

void MsrBitmap::intercept_all() {
    std::memset(page_, 0xFF, page_size);
}

void MsrBitmap::set(MsrIndex index, u32 offset, bool exits) {
    const u32 low = index.raw() & 0x1FFF;
    const u32 base = index.raw() - low;
    if (base != 0 && base != 0xC0000000) return;
    u8& byte = page_[offset + (base != 0 ? 0x400 : 0) + low / 8];
    const u8 mask = bit<u8>(low % 8);
    byte = exits ? byte | mask : byte & static_cast<u8>(~mask);
}

bool MsrBitmap::get(MsrIndex index, u32 offset) const {
    const u32 low = index.raw() & 0x1FFF;
    const u32 base = index.raw() - low;
    if (base != 0 && base != 0xC0000000) return true;
    return has_bit(page_[offset + (base != 0 ? 0x400 : 0) + low / 8], low % 8);
}

void pass_through_guest_msrs(MsrBitmap& bitmap, bool tsc_aux) {
    for (MsrIndex index : {msr::fs_base, msr::gs_base, msr::kernel_gs_base, msr::star, msr::lstar, msr::cstar,
                           msr::sfmask, msr::sysenter_cs, msr::sysenter_esp, msr::sysenter_eip, msr::pat}) {
        bitmap.set_exits(index, false);
    }
    bitmap.set_read_exits(msr::efer, false);
    bitmap.set_read_exits(msr::tsc, false);
    if (tsc_aux) bitmap.set_read_exits(msr::tsc_aux, false);
}

void set_x2apic_exits(MsrBitmap& bitmap, bool virtualized, bool full) {
    const auto msr_of = [](u32 offset) { return MsrIndex(msr::x2apic_first.raw() + offset / 16); };
    for (u32 index = msr::x2apic_first.raw(); index <= msr::x2apic_last.raw(); ++index) {
        bitmap.set_exits(MsrIndex(index), true);
    }
    if (!virtualized) return;
    bitmap.set_exits(msr_of(apic::tpr), false);
    if (!full) return;
    // Not the timer's current count, which nobody keeps in the page; not ICR, whose halves lie elsewhere in
    // xAPIC mode; not what cannot be read.
    for (u32 offset : {apic::id, apic::version, apic::ppr, apic::ldr, apic::svr, apic::esr, apic::lvt_timer,
                       apic::lvt_thermal, apic::lvt_performance, apic::lvt_lint0, apic::lvt_lint1,
                       apic::lvt_error, apic::timer_initial, apic::timer_divide}) {
        bitmap.set_read_exits(msr_of(offset), false);
    }
    for (u32 i = 0; i < 8; ++i) {
        bitmap.set_read_exits(msr_of(apic::isr + 16 * i), false);
        bitmap.set_read_exits(msr_of(apic::tmr + 16 * i), false);
        bitmap.set_read_exits(msr_of(apic::irr + 16 * i), false);
    }
    bitmap.set_write_exits(msr_of(apic::eoi), false);
    bitmap.set_write_exits(msr_of(apic::self_ipi), false);
}

}  // namespace bulkhead::vmx
