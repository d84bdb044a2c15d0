// The interrupt fabric of a VM: I/O APIC, both PICs, their wires and three local APICs that talk to one
// another. Nobody but the addressed hears anything, no EOI loops, no delivery is unbounded.
#include "vmm/interrupts.hpp"

#include "tests/fakes/fake_clock.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "vmm/dev/irq_router.hpp"
#include "vmm/dev/pic_8259.hpp"

using namespace bulkhead;

namespace {

constexpr unsigned processors = 3;

struct CountingWaker final : Waker {
    void wake(unsigned vcpu) override {
        MUST(vcpu < processors);
        // One operation reaches each processor once a message; EOIs may deliver each pin again.
        MUST(++calls < 400);
    }
    unsigned calls = 0;
};

struct alignas(4096) Page {
    u8 bytes[4096] = {};
};

struct Fabric {
    Fabric() {
        for (unsigned i = 0; i < processors; ++i) {
            apics[i] =
                std::make_unique<LocalApic>(pages[i].bytes, clock, interrupts,
                                            LocalApic::Parameters{.id = i == 2 ? 9 : i, .bootstrap = i == 0});
            MUST(interrupts.add(*apics[i]));
            apics[i]->reset();
            if (i != 2) apics[i]->write(apic::svr, 4, 0x1FF);
        }
        MUST(interrupts.add(io_apic));
        io_apic.reset();
        pic.reset();
        for (unsigned i = 0; i < 16; ++i) pic_lines[i] = &pic.input(i);
        for (unsigned i = 0; i < IoApic::pin_count; ++i) pins[i] = &io_apic.line(i);
        router = std::make_unique<IrqRouter>(pic_lines, pins);
    }
    FakeClock clock{2'000'000'000};
    CountingWaker waker;
    Interrupts interrupts{waker};
    Page pages[processors];
    std::unique_ptr<LocalApic> apics[processors];
    IoApic io_apic{interrupts};
    Pic8259 pic{interrupts.pic_output()};
    IrqLine* pic_lines[16];
    IrqLine* pins[IoApic::pin_count];
    std::unique_ptr<IrqRouter> router;
};

// A message's or an entry's low word: mostly sound.
u32 command(fuzz::Input& in) {
    const u8 kind = in.byte();
    if ((kind & 0xE0) == 0xE0) return in.value<u32>();
    return (u32{kind} << 8 & 0x700) | in.byte() | ((kind & 8) != 0 ? 0x8000 : 0) |
           ((kind & 0x10) != 0 ? 0x800 : 0) | (kind == 0x20 ? 0x10000 : 0);
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    auto vm = std::make_unique<Fabric>();
    while (!in.empty()) {
        vm->waker.calls = 0;
        const u8 operation = in.byte();
        LocalApic& apic = *vm->apics[(operation >> 6) % processors];
        switch (operation & 0xF) {
            case 0: vm->router->line(in.byte() % 20U).set((operation & 0x10) != 0); break;
            case 1: vm->io_apic.set(in.byte() % 26U, (operation & 0x10) != 0); break;
            case 2:
            case 3: {  // a redirection entry
                const u32 pin = in.byte() % 26U;
                vm->io_apic.write(0, 4, 0x10 + 2 * pin);
                vm->io_apic.write(0x10, 4, command(in));
                vm->io_apic.write(0, 4, 0x11 + 2 * pin);
                vm->io_apic.write(0x10, 4, u32{in.byte()} << 24);
                break;
            }
            case 4: vm->io_apic.write(in.byte(), 1U << (operation >> 4 & 3), in.number()); break;
            case 5: (void)vm->io_apic.read(in.byte(), 1U << (operation >> 4 & 3)); break;
            case 6:
                apic.write(apic::icr_high, 4, u64{in.byte()} << 24);
                apic.write(apic::icr_low, 4, command(in) | (u32{in.byte()} & 3) << 18);
                break;
            case 7: apic.write(u64{in.byte()} << 4, 4, in.number()); break;
            case 8: vm->interrupts.deliver_msi(0xFEE00000 | (in.value<u32>() & 0xFFFFF), command(in)); break;
            case 9: vm->interrupts.deliver_msi(in.number(), static_cast<u32>(in.number())); break;
            case 10: {
                // A processor takes what is due, and mostly ends it.
                for (unsigned i = 0; i < 4; ++i) {
                    if (apic.has_extint()) {
                        apic.take_extint();
                        (void)vm->pic.acknowledge();
                    } else if (const auto pending = apic.highest_pending()) {
                        MUST(apic.acknowledge() == *pending);
                        if ((operation & 0x10) != 0) apic.write(apic::eoi, 4, 0);
                    }
                }
                break;
            }
            case 11: apic.write(apic::eoi, 4, 0); break;
            case 12: vm->interrupts.broadcast_eoi(Vector(in.byte())); break;
            case 13: static_cast<Device&>(vm->pic).write(in.byte() % 6U, 1, in.byte()); break;
            case 14:
                if (!apic.write_base((apic.base() & ~u64{0xC00}) | u64{in.byte() & 3U} << 10)) break;
                (void)apic.write_msr(MsrIndex(0x830), u64{in.byte()} << 32 | command(in));
                break;
            default:
                apic.take_init();
                apic.take_nmi();
                (void)apic.take_sipi();
                if ((operation & 0x10) != 0) vm->io_apic.reset();
                if ((operation & 0x20) != 0) apic.reset();
        }
    }
}
