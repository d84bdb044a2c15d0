#include "vmm/dev/local_apic.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <thread>

#include "tests/unit/vmm/dev/apic_bench.hpp"

using namespace bulkhead;

TEST_CASE("after reset the registers are as table 11-1 and 11.4.7.1 say") {
    ApicBench bench({.id = 3, .bootstrap = true});
    REQUIRE(bench.apic.mode() == ApicMode::xapic);
    REQUIRE(bench.apic.base() == 0xFEE00900);
    REQUIRE(bench.apic.page_address().raw() == 0xFEE00000);
    REQUIRE(bench.read(apic::id) == 3U << 24);
    REQUIRE(bench.read(apic::version) == 0x50014);
    REQUIRE(bench.read(apic::dfr) == 0xFFFFFFFF);
    REQUIRE(bench.read(apic::ldr) == 0);
    REQUIRE(bench.read(apic::svr) == 0xFF);
    REQUIRE(bench.read(apic::tpr) == 0);
    for (u32 offset = apic::isr; offset < apic::esr; offset += 16) REQUIRE(bench.read(offset) == 0);
    for (u32 offset = apic::lvt_timer; offset <= apic::lvt_error; offset += 16)
        REQUIRE(bench.read(offset) == 0x10000);
    REQUIRE(bench.read(apic::timer_initial) == 0);
    REQUIRE(bench.read(apic::timer_current) == 0);
    REQUIRE(bench.read(apic::timer_divide) == 0);
    REQUIRE(bench.errors() == 0);
    REQUIRE(bench.apic.deadline() == never);
}

TEST_CASE("the ID is read-only, other registers keep what the architecture defines of them") {
    ApicBench bench({.id = 1});
    bench.enable();
    bench.write(apic::id, 0xFF000000);
    REQUIRE(bench.read(apic::id) == 0x01000000);
    bench.write(apic::version, 0);
    REQUIRE(bench.read(apic::version) == 0x50014);
    for (u32 offset = 0; offset < 0x400; offset += 16)
        if (offset != apic::icr_low && offset != apic::id) bench.write(offset, 0xFFFFFFFF);
    REQUIRE(bench.read(apic::tpr) == 0xFF);
    REQUIRE(bench.read(apic::ldr) == 0xFF000000);
    REQUIRE(bench.read(apic::dfr) == 0xFFFFFFFF);
    REQUIRE(bench.read(apic::svr) == 0x1FF);
    REQUIRE(bench.read(apic::icr_high) == 0xFF000000);
    REQUIRE(bench.read(apic::lvt_timer) == 0x700FF);
    REQUIRE(bench.read(apic::lvt_thermal) == 0x107FF);
    REQUIRE(bench.read(apic::lvt_lint0) == 0x1A7FF);
    REQUIRE(bench.read(apic::lvt_error) == 0x100FF);
    REQUIRE(bench.read(apic::timer_divide) == 0xB);
    for (u32 offset = apic::isr; offset < apic::esr; offset += 16) REQUIRE(bench.read(offset) == 0);
    bench.write(apic::dfr, 0);
    REQUIRE(bench.read(apic::dfr) == 0x0FFFFFFF);
}

TEST_CASE("reads narrower than a register see its bytes, other odd accesses nothing") {
    ApicBench bench;
    REQUIRE(bench.apic.read(apic::version, 1) == 0x50014);  // the bus drops what is above a byte
    REQUIRE(bench.apic.read(apic::version + 2, 1) == 0x5);
    REQUIRE(bench.apic.read(apic::version, 8) == 0x50014);
    REQUIRE(bench.apic.read(apic::version + 4, 4) == 0);
    bench.apic.write(apic::tpr, 1, 0x40);
    bench.apic.write(apic::tpr, 8, 0x40);
    bench.apic.write(apic::tpr + 4, 4, 0x40);
    bench.apic.write(apic::tpr + 1, 4, 0x40);
    REQUIRE(bench.read(apic::tpr) == 0);
    REQUIRE(bench.apic.read(0x1000, 4) == 0xFFFFFFFF);
    REQUIRE(bench.apic.read(~u64{0}, 4) == 0xFFFFFFFF);
    bench.apic.write(~u64{0}, 4, 1);
}

TEST_CASE("a hostile mix of page accesses of every size and offset does no harm") {
    ApicBench bench;
    std::mt19937_64 random(1);
    for (int i = 0; i < 60'000; ++i) {
        const unsigned size = 1U << (random() % 4);
        const u64 offset = random() % 0x1010;
        if (random() % 2 != 0) {
            bench.apic.write(random() % 4 == 0 ? offset : offset & ~u64{15}, size, random());
        } else {
            static_cast<void>(bench.apic.read(offset, size));
        }
        if (i % 7 == 0) bench.clock.advance(random() % 100'000);
        if (bench.apic.deadline() <= bench.clock.now()) bench.apic.expire();
        if (bench.apic.highest_pending()) {
            REQUIRE(bench.apic.acknowledge().raw() >= 16);
        }
        if (bench.bus.messages.size() > 1000) bench.bus.messages.clear();
    }
}

TEST_CASE("IA32_APIC_BASE moves between modes only along the arrows of figure 11-27") {
    constexpr u64 base = apic::default_base, en = apic::base_enable, ext = apic::base_x2apic;
    ApicBench bench;
    LocalApic& apic = bench.apic;
    REQUIRE_FALSE(apic.write_base(base | ext));  // EXTD without EN
    REQUIRE(apic.write_base(base | en | ext));   // xAPIC -> x2APIC
    REQUIRE(apic.mode() == ApicMode::x2apic);
    REQUIRE_FALSE(apic.write_base(base | en));   // back is not allowed
    REQUIRE_FALSE(apic.write_base(base | ext));  //
    REQUIRE(apic.write_base(base | en | ext));   // no change
    REQUIRE(apic.write_base(base));              // disabled
    REQUIRE(apic.mode() == ApicMode::disabled);
    REQUIRE_FALSE(apic.write_base(base | en | ext));  // disabled -> x2APIC
    REQUIRE(apic.write_base(base | en));              // disabled -> xAPIC
    REQUIRE(apic.mode() == ApicMode::xapic);
}

TEST_CASE("reserved bits of IA32_APIC_BASE are refused and a new address is the guest's own business") {
    ApicBench bench({.physical_bits = 36});
    for (const unsigned n : {0U, 1U, 7U, 9U, 36U, 40U, 63U}) {
        REQUIRE_FALSE(bench.apic.write_base(bench.apic.base() | bit(n)));
    }
    REQUIRE(bench.apic.write_base(0x800000000 | apic::base_enable));
    REQUIRE(bench.apic.page_address().raw() == 0x800000000);
    REQUIRE(bench.apic.mode() == ApicMode::xapic);

    ApicBench old({.x2apic = false});
    REQUIRE_FALSE(old.apic.write_base(old.apic.base() | apic::base_x2apic));
}

TEST_CASE(
    "disabling the APIC loses its state, leaves a hole and makes LINT0 and LINT1 the processor's pins") {
    ApicBench bench;
    bench.enable();
    bench.write(apic::tpr, 0x20);
    REQUIRE(bench.apic.post(Vector(0x55), false));
    REQUIRE(bench.pending() == 0x55);
    REQUIRE(bench.apic.write_base(apic::default_base));
    REQUIRE(bench.read(apic::version) == 0xFFFFFFFF);
    bench.write(apic::tpr, 0x30);
    REQUIRE(bench.pending() == 0);
    REQUIRE_FALSE(bench.apic.post(Vector(0x55), false));
    REQUIRE_FALSE(bench.apic.post_nmi());
    REQUIRE_FALSE(bench.apic.post_init());
    REQUIRE_FALSE(bench.apic.post_sipi(Vector(1)));
    REQUIRE_FALSE(bench.apic.has_extint());
    bench.apic.set_lint(0, true);
    REQUIRE(bench.apic.has_extint());
    bench.apic.set_lint(1, true);
    bench.apic.collect();
    REQUIRE(bench.apic.take_nmi());
    bench.apic.set_lint(0, false);
    REQUIRE(bench.apic.write_base(apic::default_base | apic::base_enable));
    REQUIRE(bench.read(apic::tpr) == 0);
    REQUIRE(bench.read(apic::svr) == 0xFF);
    REQUIRE(bench.pending() == 0);
}

TEST_CASE("priorities follow 11.8.3: a request is delivered only above the class of TPR and service") {
    ApicBench bench;
    bench.enable();
    LocalApic& apic = bench.apic;
    for (const u8 vector : {0x31, 0x35, 0x42, 0x61}) REQUIRE(apic.post(Vector(vector), false));
    REQUIRE(bench.pending() == 0x61);
    bench.write(apic::tpr, 0x6F);
    REQUIRE(bench.read(apic::ppr) == 0x6F);
    REQUIRE(bench.pending() == 0);
    REQUIRE(apic.tpr_threshold() == 6);
    bench.write(apic::tpr, 0x5F);
    REQUIRE(bench.pending() == 0x61);
    REQUIRE(apic.acknowledge() == Vector(0x61));
    REQUIRE(bench.read(apic::isr + 0x30) == 2);
    REQUIRE(bench.read(apic::irr + 0x30) == 0);
    REQUIRE(bench.read(apic::ppr) == 0x60);
    REQUIRE(bench.pending() == 0);
    REQUIRE(apic.tpr_threshold() == 0);  // the service holds it, not the TPR
    bench.write(apic::tpr, 0);
    REQUIRE(bench.pending() == 0);
    bench.write(apic::eoi, 0);
    REQUIRE(bench.pending() == 0x42);
    REQUIRE(apic.acknowledge() == Vector(0x42));
    REQUIRE(bench.pending() == 0);  // 35h waits behind 42h
    REQUIRE(apic.post(Vector(0x71), false));
    REQUIRE(apic.acknowledge() == Vector(0x71));  // nests
    REQUIRE(apic.highest_service() == 0x71);
    bench.write(apic::eoi, 0);
    REQUIRE(apic.highest_service() == 0x42);
    bench.write(apic::eoi, 0);
    REQUIRE(apic.acknowledge() == Vector(0x35));
    REQUIRE(bench.pending() == 0);  // same class
    bench.write(apic::eoi, 0);
    REQUIRE(apic.acknowledge() == Vector(0x31));
    bench.write(apic::eoi, 0);
    REQUIRE(bench.pending() == 0);
    REQUIRE(bench.bus.ended.empty());
}

TEST_CASE("the arbitration priority follows 11.6.2.4") {
    ApicBench bench;
    bench.enable();
    bench.write(apic::tpr, 0x35);
    REQUIRE(bench.read(apic::apr) == 0x35);
    bench.apic.post(Vector(0x71), false);
    bench.apic.collect();
    REQUIRE(bench.read(apic::apr) == 0x70);
}

TEST_CASE("CR8 is the TPR's upper half") {
    ApicBench bench;
    bench.apic.set_cr8(0xB);
    REQUIRE(bench.read(apic::tpr) == 0xB0);
    bench.write(apic::tpr, 0x5C);
    REQUIRE(bench.apic.cr8() == 5);
}

TEST_CASE("an acknowledge that comes too late yields the spurious vector and no service") {
    ApicBench bench;
    bench.write(apic::svr, 0x1AB);
    REQUIRE(bench.apic.acknowledge() == Vector(0xAB));
    bench.apic.post(Vector(0x40), false);
    bench.write(apic::tpr, 0xF0);
    REQUIRE(bench.apic.acknowledge() == Vector(0xAB));
    REQUIRE(bench.apic.highest_service() == 0);
}

TEST_CASE("EOI storms without a service change nothing") {
    ApicBench bench;
    bench.enable();
    for (int i = 0; i < 1000; ++i) {
        bench.write(apic::eoi, static_cast<u32>(i));
        bench.write(apic::tpr, static_cast<u32>(i));
    }
    REQUIRE(bench.bus.ended.empty());
    REQUIRE(bench.pending() == 0);
}

TEST_CASE("a level-triggered vector is in the TMR and its EOI is broadcast") {
    ApicBench bench;
    bench.enable();
    REQUIRE(bench.apic.post(Vector(0x81), true));
    REQUIRE(bench.apic.acknowledge() == Vector(0x81));
    REQUIRE(bench.apic.is_level(Vector(0x81)));
    REQUIRE(bench.read(apic::tmr + 0x40) == 2);
    REQUIRE(bench.apic.take_trigger_change() == Vector(0x81));
    REQUIRE_FALSE(bench.apic.take_trigger_change());
    bench.write(apic::eoi, 0);
    REQUIRE(bench.bus.ended == std::vector<u8>{0x81});
    // The same vector as an edge later.
    REQUIRE(bench.apic.post(Vector(0x81), false));
    bench.apic.acknowledge();
    REQUIRE_FALSE(bench.apic.is_level(Vector(0x81)));
    REQUIRE(bench.apic.take_trigger_change() == Vector(0x81));
    bench.write(apic::eoi, 0);
    REQUIRE(bench.bus.ended.size() == 1);
}

TEST_CASE("while software-disabled fixed interrupts are refused, entries stay masked, signals come through") {
    ApicBench bench;
    REQUIRE_FALSE(bench.apic.post(Vector(0x40), false));
    bench.write(apic::lvt_lint0, 0x700);
    REQUIRE(bench.read(apic::lvt_lint0) == 0x10700);
    bench.enable();
    bench.write(apic::lvt_lint0, 0x700);
    bench.write(apic::lvt_timer, 0x40);
    bench.write(apic::lvt_error, 0xFE);
    bench.write(apic::svr, 0xFF);
    for (u32 offset = apic::lvt_timer; offset <= apic::lvt_error; offset += 16)
        REQUIRE((bench.read(offset) & apic::masked) != 0);
    REQUIRE(bench.apic.post_nmi());
    REQUIRE(bench.apic.post_init());
    REQUIRE(bench.apic.post_sipi(Vector(8)));
    bench.enable();
    REQUIRE((bench.read(apic::lvt_timer) & apic::masked) != 0);  // stays until software clears it
}

TEST_CASE("errors become visible when the ESR is written, and raise the error interrupt once each") {
    ApicBench bench;
    bench.enable();
    bench.write(apic::lvt_error, 0xFE);
    bench.write(apic::icr_low, 0x5);  // fixed, vector 5
    REQUIRE(bench.bus.messages.empty());
    REQUIRE(bench.read(apic::esr) == 0);
    REQUIRE(bench.pending() == 0xFE);
    bench.apic.acknowledge();
    bench.write(apic::eoi, 0);
    bench.write(apic::icr_low, 0x6);
    REQUIRE(bench.pending() == 0);  // nothing new
    REQUIRE(bench.errors() == 0x20);
    REQUIRE(bench.errors() == 0);
    REQUIRE(bench.read(0x3F0) == 0);  // no such register in xAPIC mode
    REQUIRE(bench.pending() == 0xFE);
    bench.write(0x2F0, 0);
    REQUIRE(bench.errors() == 0x80);
}

TEST_CASE("vectors below 16 are never delivered: ICR, LVT, messages and the error entry itself (XSA-462)") {
    ApicBench bench;
    bench.enable();
    for (u32 vector = 0; vector < 16; ++vector) {
        bench.write(apic::lvt_error, vector);
        bench.write(apic::icr_low, vector);             // no shorthand
        bench.write(apic::icr_low, vector | 1U << 18);  // self
        bench.write(apic::icr_low, vector | 1U << 8);   // lowest priority
        bench.write(apic::lvt_timer, vector);
        bench.write(apic::timer_initial, 1);
        bench.clock.advance(1000);
        bench.apic.expire();
        bench.apic.post(Vector(static_cast<u8>(vector)), false);
        REQUIRE(bench.pending() == 0);
        REQUIRE(bench.errors() == 0x60);
    }
    REQUIRE(bench.bus.messages.empty());
    REQUIRE(bench.read(apic::irr) == 0);
}

TEST_CASE("the ICR sends what the manual's table 11-3 allows and drops SMI, ExtINT and reserved modes") {
    ApicBench bench({.id = 7});
    bench.enable();
    bench.write(apic::icr_high, 0x05000000);
    bench.write(apic::icr_low, 0x4000 | 0x40);
    REQUIRE(bench.bus.messages.size() == 1);
    const InterruptMessage& fixed = bench.bus.messages[0];
    REQUIRE(fixed.destination == 5);
    REQUIRE(fixed.vector == 0x40);
    REQUIRE(fixed.delivery == apic::Delivery::fixed);
    REQUIRE_FALSE(fixed.logical);
    REQUIRE_FALSE(fixed.wide);
    REQUIRE_FALSE(fixed.level);
    REQUIRE(fixed.source == 7);
    bench.bus.messages.clear();

    bench.write(apic::icr_low, 0x800 | 0xC040 | 3U << 18);  // logical, "level", all others
    REQUIRE(bench.bus.messages.at(0).logical);
    REQUIRE_FALSE(bench.bus.messages.at(0).level);  // ignored, as for every mode but INIT
    REQUIRE(bench.bus.messages.at(0).shorthand == apic::Shorthand::others);
    bench.bus.messages.clear();

    for (const u32 mode : {2U, 3U, 7U}) bench.write(apic::icr_low, mode << 8 | 0x40);
    REQUIRE(bench.bus.messages.empty());
    bench.write(apic::icr_low, 0x8500);  // INIT level de-assert
    REQUIRE(bench.bus.messages.empty());
    bench.write(apic::icr_low, 0x4500);
    REQUIRE(bench.bus.messages.at(0).delivery == apic::Delivery::init);
    bench.write(apic::icr_low, 0xC500);
    bench.write(apic::icr_low, 0x4608);
    REQUIRE(bench.bus.messages.at(2).delivery == apic::Delivery::startup);
    REQUIRE(bench.bus.messages.at(2).vector == 8);
    bench.write(apic::icr_low, 0x4400);
    REQUIRE(bench.bus.messages.at(3).delivery == apic::Delivery::nmi);
    REQUIRE(bench.errors() == 0);
    // The delivery status reads as idle, reserved bits as zero.
    bench.write(apic::icr_low, 0xFFF3F040 & ~0x700U);
    REQUIRE(bench.read(apic::icr_low) == (0xFFF3F040 & ~0x700U & 0xCCFFF));
}

TEST_CASE("a self-IPI arrives without the bus") {
    ApicBench bench;
    bench.enable();
    bench.write(apic::icr_low, 0x40000 | 0x52);
    REQUIRE(bench.bus.messages.empty());
    REQUIRE(bench.pending() == 0x52);
}

TEST_CASE("NMI, INIT and SIPI stay pending until taken, and INIT supersedes what came before") {
    ApicBench bench;
    LocalApic& apic = bench.apic;
    REQUIRE_FALSE(apic.has_signal());
    apic.post_nmi();
    apic.post_nmi();
    REQUIRE(apic.nmi_pending());
    REQUIRE(apic.take_nmi());
    REQUIRE_FALSE(apic.take_nmi());
    apic.post_sipi(Vector(0x10));
    apic.post_init();
    REQUIRE(apic.take_init());
    REQUIRE_FALSE(apic.take_sipi());
    apic.post_init();
    apic.post_sipi(Vector(0x9A));
    apic.post_sipi(Vector(0x9B));
    REQUIRE(apic.init_pending());
    REQUIRE(apic.take_init());
    apic.init();
    REQUIRE(apic.take_sipi() == Vector(0x9A));
    REQUIRE_FALSE(apic.take_sipi());
    REQUIRE_FALSE(apic.has_signal());
}

TEST_CASE("INIT resets all but ID and base address, and keeps x2APIC mode") {
    ApicBench bench({.id = 0x12});
    bench.enable();
    bench.enter_x2apic();
    REQUIRE(bench.apic.write_msr(x2apic_msr(apic::tpr), 0x20));
    bench.apic.post(Vector(0x90), true);
    bench.apic.collect();
    bench.apic.post(Vector(0x91), false);
    while (bench.apic.take_trigger_change()) continue;
    bench.apic.init();
    REQUIRE(bench.apic.mode() == ApicMode::x2apic);
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::id)) == 0x12);
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::ldr)) == 0x10004);
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::svr)) == 0xFF);
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::tpr)) == 0);
    REQUIRE(bench.pending() == 0);
    REQUIRE(bench.apic.take_trigger_change() == Vector(0x90));  // its EOI need not exit any more
}

TEST_CASE("LINT0 passes the 8259A's interrupts on as ExtINT only while unmasked") {
    ApicBench bench;
    bench.apic.set_lint(0, true);
    REQUIRE_FALSE(bench.apic.has_extint());
    bench.apic.enter_virtual_wire_mode();
    REQUIRE(bench.apic.has_extint());
    bench.apic.set_lint(0, false);
    REQUIRE_FALSE(bench.apic.has_extint());
    REQUIRE(bench.apic.set_lint(0, true));
    REQUIRE_FALSE(bench.apic.set_lint(0, true));  // no edge
    bench.write(apic::lvt_lint0, 0x10700);
    REQUIRE_FALSE(bench.apic.has_extint());
    // An I/O APIC's ExtINT message asks once.
    bench.apic.post_extint();
    REQUIRE(bench.apic.has_extint());
    bench.apic.take_extint();
    REQUIRE_FALSE(bench.apic.has_extint());
}

TEST_CASE("LINT pins deliver by their entries: NMI, fixed edges, and levels until released") {
    ApicBench bench;
    bench.apic.enter_virtual_wire_mode();
    bench.apic.set_lint(1, true);
    REQUIRE(bench.pending() == 0);
    REQUIRE(bench.apic.take_nmi());

    bench.write(apic::lvt_lint0, 0x44);
    bench.apic.set_lint(0, true);
    REQUIRE(bench.pending() == 0x44);
    bench.apic.acknowledge();
    bench.write(apic::eoi, 0);
    REQUIRE(bench.pending() == 0);
    bench.apic.set_lint(0, false);

    bench.write(apic::lvt_lint0, 0x8045);
    bench.apic.set_lint(0, true);
    REQUIRE(bench.pending() == 0x45);
    REQUIRE((bench.read(apic::lvt_lint0) & apic::remote_irr) != 0);
    bench.apic.acknowledge();
    bench.write(apic::eoi, 0);
    REQUIRE(bench.pending() == 0x45);  // still asserted
    bench.apic.acknowledge();
    bench.apic.set_lint(0, false);
    bench.write(apic::eoi, 0);
    REQUIRE(bench.pending() == 0);
    REQUIRE((bench.read(apic::lvt_lint0) & apic::remote_irr) == 0);
}

TEST_CASE("x2APIC mode: the page is a hole and the MSRs are the registers") {
    ApicBench bench({.id = 0x25});
    bench.enable();
    REQUIRE_FALSE(bench.apic.read_msr(x2apic_msr(apic::id)));  // not in xAPIC mode (XSA-108)
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::eoi), 0));
    bench.enter_x2apic();
    REQUIRE(bench.read(apic::id) == 0xFFFFFFFF);
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::id)) == 0x25);
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::ldr)) == (0x2U << 16 | 1U << 5));
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::svr)) == 0x1FF);  // state is kept across the transition
    REQUIRE(bench.apic.write_msr(x2apic_msr(apic::self_ipi), 0x66));
    REQUIRE(bench.pending() == 0x66);
    bench.apic.acknowledge();
    REQUIRE(bench.apic.read_msr(MsrIndex(0x813)) == bit(6));
    REQUIRE(bench.apic.write_msr(x2apic_msr(apic::eoi), 0));
    REQUIRE(bench.apic.highest_service() == 0);
    REQUIRE(bench.apic.write_msr(x2apic_msr(apic::icr_low), 0x123456789ABCDEFF & 0xFFFFFFFF000C8FFF));
    REQUIRE(bench.apic.write_msr(x2apic_msr(apic::icr_low), u64{0x00020003} << 32 | 0x4841));
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::icr_low)) == (u64{0x00020003} << 32 | 0x4841));
    const InterruptMessage& message = bench.bus.messages.back();
    REQUIRE(message.wide);
    REQUIRE(message.logical);
    REQUIRE(message.destination == 0x00020003);
}

TEST_CASE("x2APIC MSRs: absent ones, read-only ones and reserved bits are #GP, over all 256 (XSA-108)") {
    ApicBench bench;
    bench.enable();
    bench.enter_x2apic();
    const auto readable = [](u32 n) {
        return n == 2 || n == 3 || n == 8 || n == 0xA || n == 0xD || n == 0xF || (n >= 0x10 && n <= 0x28) ||
               n == 0x30 || (n >= 0x32 && n <= 0x39) || n == 0x3E;
    };
    const auto writable = [](u32 n) {
        return n == 8 || n == 0xB || n == 0xF || n == 0x28 || n == 0x30 || (n >= 0x32 && n <= 0x38) ||
               n == 0x3E || n == 0x3F;
    };
    for (u32 n = 0; n < 256; ++n) {
        INFO("MSR " << std::hex << 0x800 + n);
        const MsrIndex index(0x800 + n);
        REQUIRE(bench.apic.read_msr(index).has_value() == readable(n));
        if (n != 0x3F) REQUIRE(bench.apic.write_msr(index, 0) == writable(n));
        if (n != 0x30) REQUIRE_FALSE(bench.apic.write_msr(index, bit(32)));
    }
    REQUIRE_FALSE(bench.apic.read_msr(MsrIndex(0x7FF)));
    REQUIRE_FALSE(bench.apic.read_msr(MsrIndex(0x900)));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::tpr), 0x100));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::eoi), 1));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::esr), 1));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::svr), 0x1000));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::lvt_timer), 0x80000));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::lvt_error), 0x400));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::icr_low), 0x2000));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::icr_low), 0x100000));
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::timer_divide), 4));
    REQUIRE(bench.apic.write_msr(x2apic_msr(apic::self_ipi), 3));
    REQUIRE(bench.apic.write_msr(x2apic_msr(apic::esr), 0));
    // Vector 0 went out above by writing zeros to the ICR: a send error too.
    REQUIRE(bench.apic.read_msr(x2apic_msr(apic::esr)) == 0x20);
}

TEST_CASE("destinations: physical, flat, cluster, x2APIC cluster and broadcast") {
    using M = InterruptMessage;
    ApicBench bench({.id = 0x13});
    LocalApic& apic = bench.apic;
    REQUIRE(apic.is_destination(M{.destination = 0x13}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x12}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x113, .wide = true}));
    REQUIRE(apic.is_destination(M{.destination = 0xFF}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0xFF, .wide = true}));
    REQUIRE(apic.is_destination(M{.destination = 0xFFFFFFFF, .wide = true}));
    // Flat.
    bench.write(apic::ldr, 0x04000000);
    REQUIRE(apic.is_destination(M{.destination = 0x06, .logical = true}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x0B, .logical = true}));
    REQUIRE(apic.is_destination(M{.destination = 0xFF, .logical = true}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x104, .logical = true, .wide = true}));
    // Cluster 2, member 4.
    bench.write(apic::dfr, 0x0FFFFFFF);
    bench.write(apic::ldr, 0x24000000);
    REQUIRE(apic.is_destination(M{.destination = 0x2C, .logical = true}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x34, .logical = true}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x28, .logical = true}));
    REQUIRE(apic.is_destination(M{.destination = 0xFF, .logical = true}));
    bench.write(apic::dfr, 0x5FFFFFFF);
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x24, .logical = true}));
    // x2APIC: cluster 1, member 3.
    bench.enter_x2apic();
    REQUIRE(apic.is_destination(M{.destination = 0x00010008, .logical = true, .wide = true}));
    REQUIRE(apic.is_destination(M{.destination = 0x0001FFFF, .logical = true, .wide = true}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x00020008, .logical = true, .wide = true}));
    REQUIRE_FALSE(apic.is_destination(M{.destination = 0x00010004, .logical = true, .wide = true}));
    REQUIRE(apic.is_destination(M{.destination = 0xFFFFFFFF, .logical = true, .wide = true}));
    REQUIRE(apic.is_destination(M{.destination = 0x13, .wide = true}));
}

TEST_CASE(
    "with full hardware assistance software learns what it has to tell the hardware and what to do after") {
    ApicBench bench({.id = 2, .assist = ApicAssist::full});
    auto* page = reinterpret_cast<u32*>(bench.page);
    const auto hardware_writes = [&](u32 offset, u32 value) {
        page[offset / 4] = value;
        bench.apic.apic_write(offset);
    };
    bench.enable();
    REQUIRE_FALSE(bench.apic.collect());
    bench.apic.post(Vector(0x41), false);
    bench.apic.post(Vector(0x93), true);
    REQUIRE(bench.apic.collect());
    REQUIRE(bench.apic.highest_request() == 0x93);
    REQUIRE(bench.apic.highest_service() == 0);
    REQUIRE(bench.apic.take_trigger_change() == Vector(0x93));
    // The hardware delivers 93h and ends it.
    page[(apic::irr + 0x40) / 4] = 0;
    page[(apic::isr + 0x40) / 4] = bit<u32>(0x13);
    REQUIRE(bench.apic.highest_request() == 0x41);
    REQUIRE(bench.apic.highest_service() == 0x93);
    REQUIRE(bench.pending() == 0);
    page[(apic::isr + 0x40) / 4] = 0;
    bench.apic.virtual_eoi(Vector(0x93));
    REQUIRE(bench.bus.ended == std::vector<u8>{0x93});
    REQUIRE(bench.pending() == 0x41);

    hardware_writes(apic::id, 0xAA000000);
    REQUIRE(bench.read(apic::id) == 0x02000000);
    hardware_writes(apic::lvt_timer, 0xFFF20033);
    REQUIRE(bench.read(apic::lvt_timer) == 0x20033);
    hardware_writes(apic::timer_divide, 0xB);
    hardware_writes(apic::timer_initial, 100);
    REQUIRE(bench.apic.deadline() == bench.clock.now() + 100);
    hardware_writes(apic::esr, 0x1234);
    REQUIRE(bench.read(apic::esr) == 0);
    hardware_writes(apic::icr_high, 0x01FFFFFF);
    hardware_writes(apic::icr_low, 0x4440);
    REQUIRE(bench.bus.messages.at(0).destination == 1);
    hardware_writes(apic::svr, 0xFFFFFE55);
    REQUIRE(bench.read(apic::svr) == 0x55);
    REQUIRE((bench.read(apic::lvt_timer) & apic::masked) != 0);
    REQUIRE(bench.apic.deadline() == never);
    bench.apic.apic_write(0xFFFFFFFF);
}

TEST_CASE("messages posted from other cores are neither lost nor doubled") {
    ApicBench bench;
    bench.enable();
    constexpr unsigned rounds = 4000;
    std::atomic<bool> done{false};
    std::atomic<unsigned> taken[2] = {};
    unsigned posted[2] = {};
    std::thread poster([&] {
        for (unsigned i = 0; i < rounds; ++i) {
            const unsigned which = i & 1;
            // One in flight of each vector, so that none collapses.
            while (taken[which].load() != posted[which]) std::this_thread::yield();
            ++posted[which];
            bench.apic.post(Vector(static_cast<u8>(0x40 + 0x80 * which)), which != 0);
        }
        done = true;
    });
    unsigned count[2] = {};
    while (!done || bench.apic.highest_pending()) {
        if (!bench.apic.highest_pending()) {
            std::this_thread::yield();
            continue;
        }
        const unsigned which = bench.apic.acknowledge() == Vector(0x40) ? 0 : 1;
        bench.write(apic::eoi, 0);
        taken[which].store(++count[which]);
    }
    poster.join();
    REQUIRE(count[0] == rounds / 2);
    REQUIRE(count[1] == rounds / 2);
    REQUIRE(bench.bus.ended.size() == rounds / 2);
}
TEST_CASE("a virtualised write beyond the registers is none") {
    ApicBench bench({.assist = ApicAssist::full});
    bench.enable();
    bench.write(apic::icr_high, 1 << 24);
    bench.write(apic::icr_low, 0x4030);
    REQUIRE(bench.bus.messages.size() == 1);
    bench.apic.apic_write(apic::icr_low);
    CHECK(bench.bus.messages.size() == 2);
    for (const u32 offset : {0x400U + apic::icr_low, 0xC00U + apic::icr_low}) bench.apic.apic_write(offset);
    CHECK(bench.bus.messages.size() == 2);
}
