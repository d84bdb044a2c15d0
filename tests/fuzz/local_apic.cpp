// The local APIC under its guest, its hardware and its neighbours: page, MSRs, interrupts, timer, signals.
#include "tests/fuzz/device.hpp"
#include "tests/unit/vmm/dev/apic_bench.hpp"

using namespace bulkhead;

namespace {

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 0x100;
    static inline LocalApic::Parameters parameters;

    Bench() : apic(page, clock, bus, parameters) {}

    // A register every 16 bytes: offsets come in units of 4, some of them off by one.
    struct Page final : Device {
        explicit Page(LocalApic& chip) : apic(chip) {}
        static u64 place(u64 offset) {
            return offset == 0xFF ? 0x0B1 : offset * 16 + (offset == 0xFE ? 4 : 0);
        }
        std::string_view name() const override { return "page"; }
        u64 read(u64 offset, unsigned size) override { return apic.read(place(offset), size); }
        void write(u64 offset, unsigned size, u64 value) override { apic.write(place(offset), size, value); }
        void reset() override { apic.reset(); }
        Ticks deadline() const override { return apic.deadline(); }
        void expire() override { apic.expire(); }
        LocalApic& apic;
    };

    Device& device() { return wrapper; }
    void keep(Bench& other) {
        // What was sent is gone.
        other.bus.messages.clear();
    }
    u64 signal(u8 what, u64 value) {
        const u64 wide = value << (value & 0x3F);
        switch (what % 24) {
            case 0: return apic.post(Vector(static_cast<u8>(value)), (what & 0x80) != 0);
            case 1: return apic.post_nmi();
            case 2: return apic.post_init();
            case 3: return apic.post_sipi(Vector(static_cast<u8>(value)));
            case 4: return apic.post_extint();
            case 5: return apic.set_lint(value & 1, (value & 2) != 0);
            case 6: return apic.collect();
            case 7: {
                const auto pending = apic.highest_pending();
                if (!pending) return 0;
                MUST(pending->raw() >= 16);
                MUST(pending->raw() >> 4 > apic.processor_priority() >> 4);
                const Vector taken = apic.acknowledge();
                MUST(parameters.assist == ApicAssist::full || taken == *pending);
                return taken.raw();
            }
            case 8: return apic.acknowledge().raw();
            case 9: return apic.has_extint();
            case 10: apic.take_extint(); return 0;
            case 11: return apic.take_nmi();
            case 12: return apic.take_init();
            case 13: {
                const auto page_number = apic.take_sipi();
                return page_number ? page_number->raw() + 1U : 0;
            }
            case 14: return apic.write_base(value | apic::default_base | ((what & 0x80) != 0 ? wide : 0));
            case 15: return apic.read_msr(MsrIndex(0x800 + (value & 0xFF))).value_or(1);
            case 16: return apic.write_msr(MsrIndex(0x800 + (value & 0xFF)), wide >> 8);
            case 17: apic.set_tsc_deadline(clock.now() + wide); return apic.tsc_deadline();
            case 18: apic.set_tsc_offset(wide); return 0;
            case 19: apic.set_cr8(value & 15); return apic.cr8();
            case 20: MUST(apic.tpr_threshold() < 16); return 0;
            case 21:
                if (parameters.assist == ApicAssist::full) {
                    apic.virtual_eoi(Vector(static_cast<u8>(value)));
                    apic.apic_write(static_cast<u32>(what >> 5 & 1 ? value : value & 0xFF0));
                }
                for (unsigned i = 0; apic.take_trigger_change(); ++i) MUST(i < 256);
                return 0;
            case 22: apic.init(); return apic.is_bootstrap();
            default:
                return apic.is_destination({.destination = static_cast<u32>(wide),
                                            .logical = (what & 0x20) != 0,
                                            .wide = (what & 0x40) != 0});
        }
    }
    u64 visible() {
        MUST(apic.mode() == ApicMode::disabled || (apic.base() & apic::base_enable) != 0);
        MUST(apic.mode() != ApicMode::x2apic || parameters.x2apic);
        u64 hash = apic.has_signal() ? 1 : 0;
        for (const InterruptMessage& message : bus.messages) {
            hash = hash * 31 + message.vector + (message.destination << 8);
        }
        if (bus.messages.size() > 64) bus.messages.clear();
        if (bus.ended.size() > 64) bus.ended.clear();
        return hash;
    }

    alignas(4096) u8 page[4096] = {};
    RecordingBus bus;
    LocalApic apic;
    Page wrapper{apic};
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    const u8 shape = in.byte();
    Bench::parameters = {.id = shape % 8U,
                         .bootstrap = (shape & 8) != 0,
                         .x2apic = (shape & 0x10) == 0,
                         .tsc_deadline = (shape & 0x20) == 0,
                         .timer_hz = (shape & 0x40) != 0 ? 24'000'000U : 0U,
                         .assist = (shape & 0x80) != 0 ? ApicAssist::full
                                   : (shape & 7) == 7  ? ApicAssist::tpr
                                                       : ApicAssist::none};
    fuzz::run_device<Bench>(in);
}
