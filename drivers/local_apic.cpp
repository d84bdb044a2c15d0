#include "drivers/local_apic.hpp"

#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/regs/msr.hpp"
#include "drivers/vectors.hpp"

namespace bulkhead::drivers {
namespace {

constexpr u32 divide_by_1 = 0b1011;
constexpr unsigned timer_mode_shift = 17;
constexpr u32 send_attempts = 100'000;

constexpr u32 delivery(apic::Delivery mode) {
    return static_cast<u32>(mode) << apic::delivery_shift;
}

}  // namespace

u32 LocalApic::read(u32 offset) const {
    if (x2apic_) return static_cast<u32>(cpu::read_msr(MsrIndex(msr::x2apic_first.raw() + (offset >> 4))));
    return cpu::mmio_read<u32>(page_ + offset);
}

void LocalApic::write(u32 offset, u32 value) {
    if (x2apic_) {
        cpu::write_msr(MsrIndex(msr::x2apic_first.raw() + (offset >> 4)), value);
    } else {
        cpu::mmio_write<u32>(page_ + offset, value);
    }
}

Result<> LocalApic::initialize(HostVirtual page) {
    const CpuidResult leaf1 = cpu::cpuid(1);
    if ((leaf1.edx & cpuid::leaf1_edx::apic) == 0)
        return fail("HV-E021: no local APIC; enable it in the firmware setup");
    page_ = page;
    x2apic_ = (leaf1.ecx & cpuid::leaf1_ecx::x2apic) != 0;
    tsc_deadline_ = (leaf1.ecx & cpuid::leaf1_ecx::tsc_deadline) != 0;
    return {};
}

Result<> LocalApic::enable_on_this_core() {
    const u64 base = cpu::read_msr(msr::apic_base);
    if ((base & apic::base_enable) == 0)
        return fail("HV-E021: the local APIC is globally disabled; enable it in the firmware setup");
    if (x2apic_) {
        if ((base & apic::base_x2apic) == 0) cpu::write_msr(msr::apic_base, base | apic::base_x2apic);
    } else if ((base & apic::base_x2apic) != 0) {
        return fail("HV-E021: a core is in x2APIC mode, which the first core does not have");
    }

    write(apic::tpr, 0);
    write(apic::svr, apic::svr_enabled | host_vector::spurious.raw());
    // Bits 23-16 of the version: the highest LVT entry's number.
    const u32 highest_entry = extract(read(apic::version), 23, 16);
    if (highest_entry >= 6) write(apic::lvt_cmci, apic::masked);
    if (highest_entry >= 5) write(apic::lvt_thermal, apic::masked);
    if (highest_entry >= 4) write(apic::lvt_performance, apic::masked);
    write(apic::lvt_timer, apic::masked);
    write(apic::lvt_lint0, apic::masked);
    write(apic::lvt_lint1, delivery(apic::Delivery::nmi));
    write(apic::lvt_error, host_vector::apic_error.raw());
    (void)take_errors();
    return {};
}

u32 LocalApic::id() const {
    const u32 value = read(apic::id);
    return x2apic_ ? value : value >> 24;
}

bool LocalApic::in_service(Vector vector) const {
    return has_bit(read(apic::isr + vector.raw() / 32 * 0x10), vector.raw() % 32);
}

bool LocalApic::requested(Vector vector) const {
    return has_bit(read(apic::irr + vector.raw() / 32 * 0x10), vector.raw() % 32);
}

bool LocalApic::send_command(u32 apic_id, u32 low) {
    if (x2apic_) {
        // Unlike a store to the xAPIC's page, WRMSR here is not ordered behind earlier stores (Intel SDM Vol.
        // 3A, 11.12.3).
        asm volatile("mfence; lfence" : : : "memory");
        cpu::write_msr(MsrIndex(msr::x2apic_first.raw() + (apic::icr_low >> 4)),
                       u64{apic::icr_destination(apic_id, true)} << 32 | low);
        return true;
    }
    // The two halves belong together: an interrupt handler that sends must not come between.
    const cpu::InterruptGuard guard;
    for (u32 i = 0; (read(apic::icr_low) & apic::delivery_pending) != 0; ++i) {
        if (i == send_attempts) return false;
        cpu::pause();
    }
    write(apic::icr_high, apic::icr_destination(apic_id, false));
    write(apic::icr_low, low);
    for (u32 i = 0; (read(apic::icr_low) & apic::delivery_pending) != 0; ++i) {
        if (i == send_attempts) return false;
        cpu::pause();
    }
    return true;
}

bool LocalApic::send(u32 apic_id, Vector vector) {
    return send_command(apic_id, apic::icr_fixed(vector.raw()));
}

bool LocalApic::send_nmi(u32 apic_id) {
    return send_command(apic_id, apic::icr_nmi());
}

bool LocalApic::send_init(u32 apic_id) {
    return send_command(apic_id, apic::icr_init());
}

bool LocalApic::send_startup(u32 apic_id, u8 page) {
    return send_command(apic_id, apic::icr_startup(page));
}

bool LocalApic::deadline_interrupts() {
    enable_timer(host_vector::timer);
    const u64 start = cpu::read_tsc_ordered();
    if (!injected(Fault::deadline_silent) && !injected(Fault::timer_silent))
        arm_timer(start + tsc_hz_ / 10'000);  // 100 us
    bool came = false;
    while (!came && cpu::read_tsc_ordered() - start < tsc_hz_ / 100) came = requested(host_vector::timer);
    disarm_timer();
    write(apic::lvt_timer, apic::masked);
    cpu::take_interrupts();  // this one: nobody handles it yet
    return came;
}

Result<> LocalApic::calibrate_timer(u64 tsc_hz) {
    tsc_hz_ = tsc_hz;
    deadline_silent_ = tsc_deadline_ && !deadline_interrupts();
    tsc_deadline_ = tsc_deadline_ && !deadline_silent_;
    if (tsc_deadline_) return {};

    write(apic::lvt_timer, apic::masked);
    write(apic::timer_divide, divide_by_1);
    constexpr u32 all = 0xFFFF'FFFF;
    const u64 ticks = tsc_hz / 500;  // 2 ms
    write(apic::timer_initial, all);
    const u64 start = cpu::read_tsc_ordered();
    u64 now;
    do {
        cpu::pause();
        now = cpu::read_tsc_ordered();
    } while (now - start < ticks);
    const u32 counted = injected(Fault::timer_silent) ? 0 : all - read(apic::timer_current);
    write(apic::timer_initial, 0);
    timer_hz_ = scale(counted, tsc_hz, now - start);
    constexpr u64 lowest_hz = 1'000'000;
    if (timer_hz_ < lowest_hz || counted == all)
        return fail("HV-E022: the local APIC's timer does not run ({} Hz); report this machine", timer_hz_);
    return {};
}

void LocalApic::enable_timer(Vector vector) {
    const auto mode = tsc_deadline_ ? apic::TimerMode::tsc_deadline : apic::TimerMode::one_shot;
    write(apic::timer_divide, divide_by_1);
    write(apic::lvt_timer, static_cast<u32>(mode) << timer_mode_shift | vector.raw());
    // In xAPIC mode the store must have reached the LVT before the deadline is written (11.5.4.1).
    asm volatile("mfence" : : : "memory");
    disarm_timer();
}

void LocalApic::arm_timer(u64 deadline) {
    if (tsc_deadline_) {
        // 0 would disarm.
        cpu::write_msr(msr::tsc_deadline, deadline == 0 ? 1 : deadline);
        return;
    }
    const u64 now = cpu::read_tsc();
    u64 count = 1;
    if (deadline > now) {
        // At most an hour at once, so that the multiplication cannot overflow its quotient.
        const u64 longest = tsc_hz_ * 3600;
        const u64 distance = deadline - now < longest ? deadline - now : longest;
        count = scale(distance, timer_hz_, tsc_hz_) + 1;
        if (count > 0xFFFF'FFFF) count = 0xFFFF'FFFF;
    }
    write(apic::timer_initial, static_cast<u32>(count));
}

void LocalApic::disarm_timer() {
    if (tsc_deadline_) {
        cpu::write_msr(msr::tsc_deadline, 0);
    } else {
        write(apic::timer_initial, 0);
    }
}

u32 LocalApic::take_errors() {
    write(apic::esr, 0);
    return read(apic::esr);
}

}  // namespace bulkhead::drivers
