// The local APIC of one virtual processor. Intel SDM Vol. 3A, chapter 11 (June 2023 edition).
//
// Implemented: xAPIC (a page of registers) and x2APIC (MSRs 800h-8FFh), the transitions of IA32_APIC_BASE,
// priorities, EOI with its broadcast, IPIs with every destination mode and shorthand, error status, the timer
// in its three modes, LINT0 and LINT1 as pins (fixed, NMI, ExtINT).
// Absent: CMCI, EOI-broadcast suppression (not advertised), extended APIC space (AMD).
// Ignored: SMIs, IPIs with a reserved or ExtINT delivery mode, INIT level de-assert, the trigger mode of
// fixed IPIs (always edge, as on every processor since the Pentium 4), writes of the ID register, accesses
// to the page other than aligned 32-bit ones (narrower reads see the register's bytes, other writes are
// dropped; the manual leaves both undefined), performance and thermal LVT entries (they never fire).
//
// Who may call what. The architectural page belongs to the core that runs the vCPU, and to the hardware while
// the guest runs: everything here is for that core only, outside guest mode, except the section marked "any
// core". Interrupts from elsewhere therefore do not go to the IRR in the page but to a second set of requests
// with a flag, which collect() merges: one relaxed load where nothing came.
#pragma once

#include <atomic>
#include <optional>

#include "arch/x86/regs/apic.hpp"
#include "vmm/dev/device.hpp"
#include "vmm/dev/interrupt_message.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead {

class LocalApic final : public Device {
  public:
    struct Parameters {
        u32 id = 0;              // below 255
        bool bootstrap = false;  // IA32_APIC_BASE.BSP after reset
        bool x2apic = true;      // whether the mode exists; CPUID says the same
        bool tsc_deadline = true;
        u8 physical_bits = 40;  // MAXPHYADDR: what lies above is reserved in IA32_APIC_BASE
        // Frequency of the timer before its divider; CPUID leaf 15h calls it the crystal. 0: the clock's,
        // which spares every access a division.
        u64 timer_hz = 0;
        // A periodic timer interrupts no oftener than this. 0: 20 us.
        Ticks minimum_period = 0;
        ApicAssist assist = ApicAssist::none;
    };

    // `page`: 4 KiB, page-aligned; holds the registers in the architecture's layout.
    LocalApic(u8* page, const Clock& clock, InterruptBus& bus, const Parameters& parameters);
    LocalApic(const LocalApic&) = delete;
    LocalApic& operator=(const LocalApic&) = delete;

    // --- Device: the page of the xAPIC. Only while mode() is xapic; a hole otherwise (all-ones, dropped).
    // ---

    [[nodiscard]] std::string_view name() const override { return "local APIC"; }
    [[nodiscard]] u64 read(u64 offset, unsigned size) override;
    void write(u64 offset, unsigned size, u64 value) override;
    void reset() override;
    [[nodiscard]] Ticks deadline() const override;
    [[nodiscard]] bool has_timer() const override { return true; }
    void expire() override { settle(); }

    // The effect of INIT: as reset, but ID, IA32_APIC_BASE and signals that came later stay.
    void init();

    // Leaves the APIC as a PC's firmware does on the bootstrap processor: software-enabled, LINT0 passing the
    // 8259As on, LINT1 an NMI.
    void enter_virtual_wire_mode();

    // --- MSRs. Nothing, or false, means #GP(0). ---

    [[nodiscard]] u64 base() const { return base_.load(std::memory_order_relaxed); }
    [[nodiscard]] bool write_base(u64 value);
    [[nodiscard]] std::optional<u64> read_msr(MsrIndex index);
    [[nodiscard]] bool write_msr(MsrIndex index, u64 value);
    // IA32_TSC_DEADLINE, in this vCPU's TSC. Reads as zero and ignores writes outside that timer mode.
    [[nodiscard]] u64 tsc_deadline();
    void set_tsc_deadline(u64 value);
    // This vCPU's TSC is clock.now() + offset, modulo 2^64.
    void set_tsc_offset(u64 offset);

    [[nodiscard]] ApicMode mode() const {
        if ((base() & apic::base_enable) == 0) return ApicMode::disabled;
        return (base() & apic::base_x2apic) != 0 ? ApicMode::x2apic : ApicMode::xapic;
    }
    [[nodiscard]] GuestPhysical page_address() const { return GuestPhysical(base() & ~u64{0xFFF}); }
    [[nodiscard]] bool is_bootstrap() const { return (base() & apic::base_bsp) != 0; }
    [[nodiscard]] u32 id() const { return id_; }

    // CR8 is bits 7:4 of the TPR. value: 0..15.
    [[nodiscard]] u8 cr8() const { return static_cast<u8>((load(apic::tpr) >> 4) & 0xF); }
    void set_cr8(u8 value) { store(apic::tpr, (u32{value} & 0xF) << 4); }

    // --- Interrupts for the vCPU ---

    // Merges what others posted into the IRR. True if anything came.
    bool collect() {
        if (!changed_.load(std::memory_order_relaxed)) return false;
        return merge();
    }
    // Whether anything was merged, by whatever asked for it, since this was last asked. Then, under
    // ApicAssist::full, the hardware is to be told highest_request(), and take_trigger_change() asked.
    [[nodiscard]] bool take_collected() {
        const bool collected = collected_;
        collected_ = false;
        return collected;
    }

    // The vector to deliver next: the highest request if its class is above the processor priority's.
    // Collects first.
    [[nodiscard]] std::optional<Vector> highest_pending();
    // Takes it: request becomes service. The spurious vector if there is none.
    Vector acknowledge();
    // True while an 8259A's interrupt is to be fetched and delivered.
    [[nodiscard]] bool has_extint();
    // After fetching it.
    void take_extint() { signals_.fetch_and(~signal_extint, std::memory_order_relaxed); }

    // 0: none. What the hardware calls RVI and SVI.
    [[nodiscard]] u8 highest_request() const;
    [[nodiscard]] u8 highest_service() const;
    // The priority class below which the TPR has to fall for an interrupt to become deliverable; 0: no exit
    // wanted, as none waits or it is not the TPR that holds it.
    [[nodiscard]] u8 tpr_threshold();
    [[nodiscard]] bool is_level(Vector vector) const { return test(apic::tmr, vector.raw()); }
    // A vector whose trigger mode changed since it was last returned, for the EOI-exit bitmap.
    [[nodiscard]] std::optional<Vector> take_trigger_change();

    // ApicAssist::full: the hardware has ended `vector` and says so because its EOI-exit bit is set.
    void virtual_eoi(Vector vector) { finish(vector.raw()); }
    // ApicAssist::full: the guest's write to `offset` is in the page; its effect is left to software.
    void apic_write(u32 offset);

    // Whether others have posted anything that is not collected, or a signal.
    [[nodiscard]] bool has_posts() const {
        return changed_.load(std::memory_order_relaxed) ||
               (signals_.load(std::memory_order_relaxed) & ~signal_watched) != 0;
    }
    // Whether somebody watches the vCPU's exits. has_signal() says yes as long: so not being watched costs it
    // nothing. Any core.
    void set_watched(bool watched) {
        if (watched) {
            signals_.fetch_or(signal_watched, std::memory_order_relaxed);
        } else {
            signals_.fetch_and(~signal_watched, std::memory_order_relaxed);
        }
    }
    [[nodiscard]] bool watched() const {
        return (signals_.load(std::memory_order_relaxed) & signal_watched) != 0;
    }
    // Signals stay until taken. A SIPI that finds the vCPU not waiting for one is to be taken and dropped.
    [[nodiscard]] bool has_signal() const { return signals_.load(std::memory_order_relaxed) != 0; }
    // False: there is nothing to collect or to take, no NMI and no 8259A's interrupt.
    [[nodiscard]] bool may_have_event() const {
        return changed_.load(std::memory_order_relaxed) || collected_ || has_signal() ||
               lint_levels_.load(std::memory_order_relaxed) != 0;
    }
    // Interrupts wait in the IRR. Not under ApicAssist::full, where the hardware knows.
    [[nodiscard]] bool has_request() const { return request_words_ != 0; }
    [[nodiscard]] bool nmi_pending() const { return has_bit(signals_.load(std::memory_order_acquire), 0); }
    [[nodiscard]] bool init_pending() const { return has_bit(signals_.load(std::memory_order_acquire), 1); }
    [[nodiscard]] bool sipi_pending() const { return has_bit(signals_.load(std::memory_order_acquire), 2); }
    bool take_nmi() { return (signals_.fetch_and(~signal_nmi) & signal_nmi) != 0; }
    bool take_init() { return (signals_.fetch_and(~signal_init) & signal_init) != 0; }
    // The page number at which to start.
    std::optional<Vector> take_sipi();

    // --- Any core ---

    // Each returns whether the APIC accepted, and thus whether the vCPU has something to look at.
    bool post(Vector vector, bool level);
    bool post_nmi();
    bool post_init();
    bool post_sipi(Vector page);
    bool post_extint();
    // The pins LINT0 and LINT1 (0, 1). True on a rising edge that the vCPU listens to.
    bool set_lint(unsigned pin, bool level);

    // Whether a message (without shorthand) addresses this APIC.
    [[nodiscard]] bool is_destination(const InterruptMessage& message) const;
    // Takes part in lowest-priority arbitration and accepts fixed interrupts.
    [[nodiscard]] bool accepts_interrupts() const {
        return mode() != ApicMode::disabled && (load(apic::svr) & apic::svr_enabled) != 0;
    }
    // For arbitration: the lower, the more willing.
    [[nodiscard]] u8 processor_priority() const;

  private:
    static constexpr u32 signal_nmi = bit<u32>(0), signal_init = bit<u32>(1), signal_sipi = bit<u32>(2),
                         signal_extint = bit<u32>(3), signal_watched = bit<u32>(4);
    static constexpr unsigned sipi_shift = 8;

    [[nodiscard]] u32 load(u32 offset) const {
        return __atomic_load_n(&registers_[offset / 4], __ATOMIC_RELAXED);
    }
    void store(u32 offset, u32 value) { __atomic_store_n(&registers_[offset / 4], value, __ATOMIC_RELAXED); }
    // Bits of the 256-bit registers ISR, TMR, IRR: 32 bits every 16 bytes.
    [[nodiscard]] static constexpr u32 word_of(u32 bitmap, u8 vector) {
        return bitmap + ((vector >> 5U) << 4U);
    }
    [[nodiscard]] bool test(u32 bitmap, u8 vector) const {
        return has_bit(load(word_of(bitmap, vector)), vector & 31U);
    }
    void set(u32 bitmap, u8 vector);
    void clear(u32 bitmap, u8 vector);
    void begin_request(u8 vector);
    void end_request(u8 vector);
    void begin_service(u8 vector);
    void end_service(u8 vector);
    [[nodiscard]] u8 highest_in(u32 bitmap, u8 words) const;
    [[nodiscard]] u8 highest(u32 bitmap) const;
    [[nodiscard]] u8 priority_over(u8 service) const;
    [[nodiscard]] u8 arbitration_priority() const;

    bool merge();
    void accept(u8 vector, bool level);
    void end_of_interrupt();
    void finish(u8 vector);
    void signal_error(u32 status);
    void raise(u32 entry);
    void lint_asserted(unsigned pin);

    [[nodiscard]] u32 read_register(u32 offset);
    void write_register(u32 offset, u32 value);
    void write_lvt(u32 offset, u32 value);
    void write_svr(u32 value);
    void send(u32 command, u32 destination);
    void self_ipi(u8 vector);
    void set_registers_to_reset();
    void set_identity();

    // Timer.
    [[nodiscard]] apic::TimerMode timer_mode() const {
        return static_cast<apic::TimerMode>(extract(timer_entry_, 18, 17));
    }
    // Counts before the divider in `ticks`, and the first tick at which `count` is reached. Free of division
    // where the timer runs at the clock's frequency.
    [[nodiscard]] u64 counts(Ticks ticks) const {
        return timer_hz_ == clock_.hz() ? ticks : scaled_counts(ticks);
    }
    [[nodiscard]] Ticks ticks_for(u64 count) const {
        return timer_hz_ == clock_.hz() ? count : scaled_ticks(count);
    }
    [[nodiscard]] u64 scaled_counts(Ticks ticks) const;
    [[nodiscard]] Ticks scaled_ticks(u64 count) const;
    [[nodiscard]] u32 current_count(Ticks now) const;
    void settle();
    void rebase(Ticks now);
    void start_timer(u32 initial);
    void stop_timer();
    void write_timer_entry(u32 value);
    void write_divide(u32 value);
    void arm_deadline(Ticks now);

    u32* registers_;
    const Clock& clock_;
    InterruptBus& bus_;
    u32 id_;
    ApicAssist assist_;
    u8 physical_bits_;
    bool bootstrap_;
    bool x2apic_;
    bool tsc_deadline_supported_;
    bool collected_ = false;
    u64 timer_hz_;
    Ticks minimum_period_;

    std::atomic<u64> base_{0};

    // What other cores want of this one.
    std::atomic<u64> requests_[4] = {};
    std::atomic<u64> request_is_level_[4] = {};
    std::atomic<u32> signals_{0};
    std::atomic<u32> remote_errors_{0};
    std::atomic<u8> lint_levels_{0};
    std::atomic<u8> lint_rises_{0};
    std::atomic<bool> changed_{false};

    // Which of the eight words of IRR and ISR are not zero. Kept while no hardware changes them (assist other
    // than full), so that the highest vector is found without a search.
    u8 request_words_ = 0;
    u8 service_words_ = 0;
    u32 pending_errors_ = 0;  // become visible in the ESR when it is written
    bool trigger_changed_ = false;
    u32 trigger_changes_[8] = {};

    // Hidden copies of what hardware may overwrite in the page before software learns of the write.
    u32 timer_entry_ = 0;
    u32 initial_count_ = 0;
    u8 lint_remote_irr_ = 0;

    // One-shot and periodic: at start_ the current count was start_count_. armed_: due_ is to come.
    bool armed_ = false;
    unsigned divide_shift_ = 1;
    u32 start_count_ = 0;
    Ticks start_ = 0;
    Ticks due_ = never;
    u64 tsc_deadline_ = 0;
    u64 tsc_offset_ = 0;
};

}  // namespace bulkhead
