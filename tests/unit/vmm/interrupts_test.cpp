#include "vmm/interrupts.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <vector>

#include "tests/fakes/fake_clock.hpp"

using namespace bulkhead;

namespace {

struct CountingWaker final : Waker {
    void wake(unsigned vcpu) override { ++woken[vcpu]; }
    unsigned woken[64] = {};
};

struct alignas(4096) Page {
    u8 bytes[4096] = {};
};

// A VM of n processors with the given IDs (0, 1, ... if none are given), all software-enabled.
struct Vm {
    explicit Vm(unsigned n, u32 first_id = 0) : pages(n) {
        for (unsigned i = 0; i < n; ++i) {
            apics.push_back(
                std::make_unique<LocalApic>(pages[i].bytes, clock, fabric,
                                            LocalApic::Parameters{.id = first_id + i, .bootstrap = i == 0}));
            apics[i]->write(apic::svr, 4, 0x1FF);
            REQUIRE(fabric.add(*apics[i]));
        }
        REQUIRE(fabric.add(io_apic));
    }

    void icr(unsigned from, u32 low, u32 destination = 0) {
        apics[from]->write(apic::icr_high, 4, destination << 24);
        apics[from]->write(apic::icr_low, 4, low);
    }
    // Whom `vector` is pending at; clears all requests.
    std::vector<unsigned> took(u8 vector) {
        std::vector<unsigned> result;
        for (unsigned i = 0; i < apics.size(); ++i) {
            while (const auto pending = apics[i]->highest_pending()) {
                if (pending->raw() == vector) result.push_back(i);
                apics[i]->acknowledge();
                apics[i]->write(apic::eoi, 4, 0);
            }
        }
        return result;
    }
    void x2apic() {
        for (const auto& apic : apics) REQUIRE(apic->write_base(apic->base() | apic::base_x2apic));
    }

    FakeClock clock;
    CountingWaker waker;
    Interrupts fabric{waker};
    IoApic io_apic{fabric};
    std::vector<Page> pages;
    std::vector<std::unique_ptr<LocalApic>> apics;
};

using List = std::vector<unsigned>;

}  // namespace

TEST_CASE("physical destinations: one, absent, all") {
    Vm vm(4);
    vm.icr(0, 0x4041, 2);
    REQUIRE(vm.waker.woken[2] == 1);
    REQUIRE(vm.took(0x41) == List{2});
    vm.icr(0, 0x4041, 77);
    REQUIRE(vm.took(0x41).empty());
    vm.icr(0, 0x4041, 0xFF);
    REQUIRE(vm.took(0x41) == List{0, 1, 2, 3});
    // The sender is awake.
    REQUIRE(vm.waker.woken[0] == 0);
    REQUIRE(vm.waker.woken[1] == 1);
}

TEST_CASE("IDs need not be the processors' numbers") {
    Vm vm(3, 1);
    vm.icr(0, 0x4041, 1);
    REQUIRE(vm.took(0x41) == List{0});
    vm.icr(0, 0x4041, 3);
    REQUIRE(vm.took(0x41) == List{2});
    vm.icr(0, 0x4041, 0);
    REQUIRE(vm.took(0x41).empty());
}

TEST_CASE("shorthands: self, all, others") {
    Vm vm(3);
    vm.icr(1, 0x44041);
    REQUIRE(vm.took(0x41) == List{1});
    vm.icr(1, 0x84041);
    REQUIRE(vm.took(0x41) == List{0, 1, 2});
    vm.icr(1, 0xC4041);
    REQUIRE(vm.took(0x41) == List{0, 2});
    vm.icr(1, 0xC4400);
    REQUIRE(vm.apics[0]->take_nmi());
    REQUIRE_FALSE(vm.apics[1]->take_nmi());
    REQUIRE(vm.apics[2]->take_nmi());
}

TEST_CASE("logical destinations in the flat model, and sixteen processors in clusters") {
    Vm vm(16);
    for (unsigned i = 0; i < 8; ++i) vm.apics[i]->write(apic::ldr, 4, bit<u32>(24 + i));
    vm.icr(0, 0x4841, 0x85);
    REQUIRE(vm.took(0x41) == List{0, 2, 7});
    for (unsigned i = 0; i < 16; ++i) {
        vm.apics[i]->write(apic::dfr, 4, 0x0FFFFFFF);
        vm.apics[i]->write(apic::ldr, 4, (i / 4) << 28 | bit<u32>(24 + i % 4));
    }
    vm.icr(0, 0x4841, 0x2B);
    REQUIRE(vm.took(0x41) == List{8, 9, 11});
    vm.icr(0, 0x4841, 0xFF);
    REQUIRE(vm.took(0x41).size() == 16);
}

TEST_CASE("x2APIC logical destinations over forty processors") {
    Vm vm(40);
    vm.x2apic();
    REQUIRE(vm.apics[0]->write_msr(MsrIndex(0x830), u64{0x00020081} << 32 | 0x4841));
    REQUIRE(vm.waker.woken[32] == 1);
    REQUIRE(vm.waker.woken[39] == 1);
    REQUIRE(vm.waker.woken[33] == 0);
    REQUIRE(vm.apics[0]->write_msr(MsrIndex(0x830), u64{0xFFFFFFFF} << 32 | 0x4042));
    for (unsigned i = 0; i < 40; ++i) REQUIRE(vm.apics[i]->highest_pending().has_value());
}

TEST_CASE("lowest priority goes to the least busy, and round among equals") {
    Vm vm(4);
    for (unsigned i = 0; i < 4; ++i) vm.apics[i]->write(apic::ldr, 4, bit<u32>(24 + i));
    const unsigned tprs[] = {0x50, 0x20, 0x30, 0x40};
    for (unsigned i = 0; i < 4; ++i) vm.apics[i]->write(apic::tpr, 4, tprs[i]);
    vm.icr(0, 0x4941, 0x0F);
    REQUIRE(vm.waker.woken[1] == 1);
    for (unsigned i = 0; i < 4; ++i) vm.apics[i]->write(apic::tpr, 4, 0);
    static_cast<void>(vm.took(0x41));
    for (unsigned i = 0; i < 4; ++i) vm.waker.woken[i] = 0;
    for (int i = 0; i < 40; ++i) vm.icr(0, 0x4941, 0x0F);
    // The sender is awake.
    for (unsigned i = 0; i < 4; ++i) REQUIRE(vm.waker.woken[i] == (i == 0 ? 0 : 10));
    // Those that are software-disabled do not take part.
    static_cast<void>(vm.took(0x41));
    for (unsigned i = 0; i < 3; ++i) vm.apics[i]->write(apic::svr, 4, 0xFF);
    vm.icr(0, 0x4941, 0x0F);
    REQUIRE(vm.took(0x41) == List{3});
}

TEST_CASE("INIT and SIPI reach their targets, SMI nobody, however many come") {
    Vm vm(3);
    for (int i = 0; i < 1000; ++i) {
        vm.icr(0, 0x4500, 1);
        vm.icr(0, 0x4600 | 0x9A, 1);
        vm.icr(0, 0x4600 | 0x9A, 1);
    }
    REQUIRE(vm.apics[1]->take_init());
    REQUIRE(vm.apics[1]->take_sipi() == Vector(0x9A));
    REQUIRE_FALSE(vm.apics[1]->has_signal());
    REQUIRE_FALSE(vm.apics[0]->has_signal());
    REQUIRE_FALSE(vm.apics[2]->has_signal());
    vm.icr(0, 0xC4500);  // all others
    REQUIRE(vm.apics[1]->init_pending());
    REQUIRE(vm.apics[2]->init_pending());
    vm.icr(2, 0x4500, 0);  // to the bootstrap processor
    REQUIRE(vm.apics[0]->init_pending());
    vm.icr(1, 0x4500, 1);  // to itself
    REQUIRE(vm.apics[1]->init_pending());
    vm.waker.woken[1] = 0;
    vm.icr(0, 0x4200, 1);
    REQUIRE(vm.waker.woken[1] == 0);
}

TEST_CASE("no message of one VM is seen by another, by any mode, destination or shorthand") {
    Vm attacker(2), victim(4);
    victim.clock.ticks = attacker.clock.ticks;
    for (const bool wide : {false, true}) {
        if (wide) {
            attacker.x2apic();
            victim.x2apic();
        }
        for (u32 mode = 0; mode < 8; ++mode)
            for (u32 shorthand = 0; shorthand < 4; ++shorthand)
                for (const u32 logical : {0U, 1U})
                    for (u32 destination = 0; destination < 256; ++destination) {
                        const u32 low = mode << 8 | shorthand << 18 | logical << 11 | 0x4041;
                        if (wide) {
                            static_cast<void>(
                                attacker.apics[0]->write_msr(MsrIndex(0x830), u64{destination} << 32 | low));
                        } else {
                            attacker.icr(0, low, destination);
                        }
                    }
    }
    for (u32 data = 0; data < 0x10000; data += 0x91)
        attacker.fabric.deliver_msi(0xFEE00000 | (data & 0xFF) << 12, data);
    REQUIRE(std::ranges::all_of(victim.waker.woken, [](unsigned n) { return n == 0; }));
    for (const auto& apic : victim.apics) {
        REQUIRE_FALSE(apic->has_signal());
        REQUIRE_FALSE(apic->highest_pending());
    }
}

TEST_CASE("a level interrupt goes from the pin through the processor's EOI back to the pin") {
    Vm vm(2);
    vm.io_apic.write(0, 4, 0x10 + 2 * 9 + 1);
    vm.io_apic.write(0x10, 4, 1U << 24);
    vm.io_apic.write(0, 4, 0x10 + 2 * 9);
    vm.io_apic.write(0x10, 4, 0x8090);
    vm.io_apic.set(9, true);
    LocalApic& apic = *vm.apics[1];
    REQUIRE(apic.acknowledge() == Vector(0x90));
    REQUIRE_FALSE(apic.highest_pending());
    apic.write(apic::eoi, 4, 0);
    REQUIRE(apic.acknowledge() == Vector(0x90));  // still asserted
    vm.io_apic.set(9, false);
    apic.write(apic::eoi, 4, 0);
    REQUIRE_FALSE(apic.highest_pending());
    REQUIRE(vm.waker.woken[1] == 2);
    // An MSI takes the short way.
    vm.fabric.deliver_msi(0xFEE01000, 0x55);
    REQUIRE(vm.took(0x55) == List{1});
}

TEST_CASE("a level that no processor takes waits until one does") {
    // What the processor does to begin to accept.
    const auto enable = [](LocalApic& apic) { apic.write(apic::svr, 4, 0x1FF); };
    const auto logical_id = [](LocalApic& apic) { apic.write(apic::ldr, 4, 2U << 24); };
    const auto flat = [](LocalApic& apic) { apic.write(apic::dfr, 4, ~0U); };
    const auto x2apic = [](LocalApic& apic) { REQUIRE(apic.write_base(apic.base() | apic::base_x2apic)); };
    struct Case {
        u64 entry;
        void (*before)(LocalApic&);
        void (*change)(LocalApic&);
    };
    const auto disable = [](LocalApic& apic) { apic.write(apic::svr, 4, 0xFF); };
    const auto none = [](LocalApic&) {};
    const auto other_cluster = [](LocalApic& apic) {
        apic.write(apic::dfr, 4, 0x0FFFFFFF);
        apic.write(apic::ldr, 4, 0x21U << 24);
    };
    const Case cases[] = {
        {u64{1} << 56 | 0x8090, disable, enable},         // physical, fixed
        {u64{1} << 56 | 0x8190, disable, enable},         // physical, lowest priority
        {u64{2} << 56 | 0x8890, none, logical_id},        // logical, flat
        {u64{0x11} << 56 | 0x8890, other_cluster, flat},  // the model decides
        {u64{2} << 56 | 0x8890, none, x2apic},            // logical ID 2 of cluster 0
    };
    for (const Case& one : cases) {
        Vm vm(2);
        LocalApic& apic = *vm.apics[1];
        one.before(apic);
        vm.io_apic.write(0, 4, 0x10 + 2 * 9 + 1);
        vm.io_apic.write(0x10, 4, one.entry >> 32);
        vm.io_apic.write(0, 4, 0x10 + 2 * 9);
        vm.io_apic.write(0x10, 4, one.entry & 0xFFFFFFFF);
        CAPTURE(one.entry);
        vm.io_apic.set(9, true);
        REQUIRE_FALSE(apic.highest_pending());
        one.change(apic);
        REQUIRE(apic.highest_pending() == Vector(0x90));
        REQUIRE(apic.is_level(Vector(0x90)));
        // Once, not again by another change, until its EOI.
        REQUIRE(apic.acknowledge() == Vector(0x90));
        vm.io_apic.retry();
        REQUIRE_FALSE(apic.highest_pending());
        // Released before anybody took it, it is gone.
        vm.io_apic.set(9, false);
        if (apic.mode() == ApicMode::xapic) {
            apic.write(apic::eoi, 4, 0);
            disable(apic);
            vm.io_apic.set(9, true);
            vm.io_apic.set(9, false);
            enable(apic);
            REQUIRE_FALSE(apic.highest_pending());
        }
    }
}

TEST_CASE("a level pin that signals NMI does so once, whatever local APICs do") {
    Vm vm(1);
    vm.io_apic.write(0, 4, 0x10 + 2 * 9);
    vm.io_apic.write(0x10, 4, 0x8400);
    vm.io_apic.set(9, true);
    REQUIRE(vm.apics[0]->take_nmi());
    vm.apics[0]->write(apic::svr, 4, 0x1FF);
    REQUIRE_FALSE(vm.apics[0]->nmi_pending());
}

TEST_CASE("the 8259As' output wakes no processor whose LINT0 is masked") {
    Vm vm(4);
    vm.apics[0]->enter_virtual_wire_mode();
    vm.fabric.pic_output().set(true);
    REQUIRE(vm.waker.woken[0] == 1);
    for (unsigned i = 1; i < 4; ++i) REQUIRE(vm.waker.woken[i] == 0);
    // Unmasked while it is high: seen without a wake-up, by the processor that unmasks it.
    vm.apics[2]->write(apic::lvt_lint0, 4, 0x700);
    REQUIRE(vm.apics[2]->has_extint());
    vm.fabric.pic_output().set(false);
    vm.fabric.pic_output().set(true);
    REQUIRE(vm.waker.woken[2] == 1);
    // With the APIC switched off the pin is the processor's INTR.
    REQUIRE(vm.apics[3]->write_base(vm.apics[3]->base() & ~u64{apic::base_enable}));
    REQUIRE(vm.apics[3]->has_extint());
    vm.fabric.pic_output().set(false);
    vm.fabric.pic_output().set(true);
    REQUIRE(vm.waker.woken[3] == 1);
}

TEST_CASE("every destination mode finds its processors, with 1 to 16 of them") {
    for (unsigned n = 1; n <= 16; ++n) {
        CAPTURE(n);
        Vm vm(n);
        const List everyone = [&] {
            List all(n);
            for (unsigned i = 0; i < n; ++i) all[i] = i;
            return all;
        }();
        const auto without = [&](unsigned one) {
            List rest = everyone;
            rest.erase(rest.begin() + one);
            return rest;
        };
        const unsigned last = n - 1;
        for (unsigned i = 0; i < n; ++i) {
            vm.icr(last, 0x4041, i);
            REQUIRE(vm.took(0x41) == List{i});
        }
        vm.icr(0, 0x4041, n);
        REQUIRE(vm.took(0x41).empty());
        vm.icr(0, 0x4041, 0xFF);
        REQUIRE(vm.took(0x41) == everyone);
        vm.icr(last, 0x44041);  // self
        REQUIRE(vm.took(0x41) == List{last});
        vm.icr(last, 0x84041);  // all
        REQUIRE(vm.took(0x41) == everyone);
        vm.icr(0, 0xC4041);  // the others
        REQUIRE(vm.took(0x41) == without(0));
        // Clusters of four.
        for (unsigned i = 0; i < n; ++i) {
            vm.apics[i]->write(apic::dfr, 4, 0x0FFFFFFF);
            vm.apics[i]->write(apic::ldr, 4, (i / 4) << 28 | bit<u32>(24 + i % 4));
        }
        for (unsigned cluster = 0; cluster < 4; ++cluster) {
            for (unsigned set = 1; set < 16; ++set) {
                List expected;
                for (unsigned i = 4 * cluster; i < 4 * cluster + 4 && i < n; ++i)
                    if (has_bit(set, i % 4)) expected.push_back(i);
                vm.icr(0, 0x4841, cluster << 4 | set);
                // Cluster Fh with all members is the broadcast; there is no such cluster here.
                REQUIRE(vm.took(0x41) == expected);
            }
        }
        vm.x2apic();
        const auto icr = [&](unsigned from, u32 low, u32 destination) {
            REQUIRE(vm.apics[from]->write_msr(MsrIndex(0x830), u64{destination} << 32 | low));
        };
        const auto took = [&](u8 vector) {
            List result;
            for (unsigned i = 0; i < n; ++i) {
                while (const auto pending = vm.apics[i]->highest_pending()) {
                    if (pending->raw() == vector) result.push_back(i);
                    vm.apics[i]->acknowledge();
                    REQUIRE(vm.apics[i]->write_msr(MsrIndex(0x80B), 0));
                }
            }
            return result;
        };
        for (unsigned i = 0; i < n; ++i) {
            REQUIRE(vm.apics[i]->read_msr(MsrIndex(0x802)) == i);
            REQUIRE(vm.apics[i]->read_msr(MsrIndex(0x80D)) == (1U << i));
            icr(0, 0x41, i);
            REQUIRE(took(0x41) == List{i});
            icr(0, 0x841, 1U << i);
            REQUIRE(took(0x41) == List{i});
        }
        icr(0, 0x841, 0xFFFF);
        REQUIRE(took(0x41) == everyone);
        icr(0, 0x841, 0x1FFFF);  // of cluster 1
        REQUIRE(took(0x41).empty());
        icr(0, 0x41, ~0U);
        REQUIRE(took(0x41) == everyone);
        icr(0, 0xC0041, 0);
        REQUIRE(took(0x41) == without(0));
        REQUIRE(vm.apics[last]->write_msr(MsrIndex(0x83F), 0x41));  // SELF IPI
        REQUIRE(took(0x41) == List{last});
        // Lowest priority: exactly one, and each in turn.
        std::vector<unsigned> count(n);
        for (unsigned i = 0; i < 4 * n; ++i) {
            icr(0, 0x941, 0xFFFF);
            const List one = took(0x41);
            REQUIRE(one.size() == 1);
            ++count[one[0]];
        }
        REQUIRE(count == std::vector<unsigned>(n, 4));
    }
}

TEST_CASE("a processor that sends to itself is not woken") {
    Vm vm(2);
    vm.icr(1, 0x4041, 1);
    vm.icr(1, 0x44042);
    vm.icr(1, 0x84043);
    REQUIRE(vm.waker.woken[1] == 0);
    REQUIRE(vm.waker.woken[0] == 1);
    REQUIRE(vm.apics[1]->acknowledge() == Vector(0x43));
}

TEST_CASE("the 8259A's output reaches the processor whose LINT0 listens") {
    Vm vm(2);
    vm.apics[0]->enter_virtual_wire_mode();
    vm.fabric.pic_output().set(true);
    REQUIRE(vm.apics[0]->has_extint());
    REQUIRE_FALSE(vm.apics[1]->has_extint());
    REQUIRE(vm.waker.woken[0] == 1);
    vm.fabric.pic_output().set(false);
    REQUIRE_FALSE(vm.apics[0]->has_extint());
}

TEST_CASE("the fabric holds 64 processors and no more; an empty one delivers nothing") {
    CountingWaker waker;
    Interrupts empty(waker);
    REQUIRE_FALSE(empty.deliver({.destination = 0xFF, .vector = 0x40}));
    REQUIRE_FALSE(
        empty.deliver({.destination = 0, .vector = 0x40, .delivery = apic::Delivery::lowest_priority}));
    Vm vm(64);
    REQUIRE_FALSE(vm.fabric.add(*vm.apics[0]));
    vm.icr(0, 0x84041);
    REQUIRE(vm.took(0x41).size() == 64);
}
