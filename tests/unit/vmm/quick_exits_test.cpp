#include "vmm/quick_exits.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

#include "vm_bench.hpp"

using namespace bulkhead;

namespace {

constexpr u64 data = 0x20'0000;

// 64-bit code whose tables lead to themselves with every flag set, in pages of 2 MiB.
struct World {
    VmBench bench;
    QuickExits& quick = *bench.cpu().quick;
    GeneralRegisters& gprs = bench.cpu().gprs;
    QuickExits::Paging paging{
        .cr3 = 0x2000, .cr4 = cr4::pae, .efer = efer::lme | efer::lma | efer::nxe, .cpl = 0};
    PortAccess out{.port = Port(0x80),
                   .size = 1,
                   .string = true,
                   .repeat = true,
                   .string_details = true,
                   .address_size = 8,
                   .segment = SegmentName::ds};

    explicit World(ApicAssist assist = ApicAssist::none) : bench(assist) {
        bench.enter_long_mode();
        bench.put64(0x2000, 0x3000 | 0x27);
        bench.put64(0x3000, 0x4000 | 0x27);
        for (u64 i = 0; i < 4; ++i) bench.put64(0x4000 + 8 * i, i * 2 * mib | 0xE7);
        gprs.rsi = gprs.rdi = data;
        gprs.rcx = 16;
    }
    [[nodiscard]] u8* bytes(u64 flags = 2) { return quick.string_bytes(out, paging, flags, gprs); }
    [[nodiscard]] u8* expected() const { return bench.vm->memory().at(GuestPhysical(data), 64); }
};

}  // namespace

TEST_CASE("A short string in one page of RAM goes to the chip in one piece") {
    World w;
    REQUIRE(w.bytes() == w.expected());
    const u8 last = 0x77;
    REQUIRE(w.bench.vm->memory().write(GuestPhysical(data + 15), {&last, 1}));
    (void)w.quick.string(w.out, w.bytes(), w.gprs);
    CHECK(w.gprs.rsi == data + 16);
    CHECK(w.gprs.rdi == data);
    CHECK(w.gprs.rcx == 0);
    CHECK(w.bench.vm->port_read(Port(0x80), 1, 0) == 0x77);

    w.out.in = true;
    w.out.segment = SegmentName::es;
    w.gprs.rcx = 3;
    const u8 behind = w.bench.byte_at(data + 3);
    u8* to = w.bytes();
    REQUIRE(to == w.expected());
    (void)w.quick.string(w.out, to, w.gprs);
    CHECK(w.bench.byte_at(data) == 0x77);
    CHECK(w.bench.byte_at(data + 2) == 0x77);
    CHECK(w.bench.byte_at(data + 3) == behind);
    CHECK(w.gprs.rdi == data + 3);
}

TEST_CASE("Whatever is not plain about a string is left to the emulator") {
    World w;
    REQUIRE(w.bytes() != nullptr);
    SECTION("backwards") {
        CHECK(w.bytes(2 | rflags::df) == nullptr);
    }
    SECTION("not repeated") {
        w.out.repeat = false;
        CHECK(w.bytes() == nullptr);
    }
    SECTION("from FS") {
        w.out.segment = SegmentName::fs;
        CHECK(w.bytes() == nullptr);
    }
    SECTION("with 32-bit addresses") {
        w.out.address_size = 4;
        CHECK(w.bytes() == nullptr);
    }
    SECTION("too many, none, or more than there are") {
        for (const u64 count : {u64{0}, u64{65}, ~u64{0}, u64{1} << 62}) {
            w.gprs.rcx = count;
            CHECK(w.bytes() == nullptr);
        }
        w.out.size = 4;
        w.gprs.rcx = 17;
        CHECK(w.bytes() == nullptr);
        w.gprs.rcx = 16;
        CHECK(w.bytes() == w.expected());
    }
    SECTION("across pages") {
        w.gprs.rsi = data + 0xFF1;
        CHECK(w.bytes() == nullptr);
        w.gprs.rsi = data + 0xFF0;
        CHECK(w.bytes() != nullptr);
    }
    SECTION("not canonical") {
        w.gprs.rsi = u64{1} << 47;
        CHECK(w.bytes() == nullptr);
    }
    SECTION("an entry that is not present, not accessed, or has a reserved bit") {
        for (const u64 entry : {u64{0x4026}, u64{0x4007}, u64{0x4027} | bit(51)}) {
            w.bench.put64(0x3000, entry);
            CHECK(w.bytes() == nullptr);
        }
    }
    SECTION("a table or a page that is no RAM") {
        w.bench.put64(0x4008, 0xE000'0000 | 0xE7);
        CHECK(w.bytes() == nullptr);
        w.bench.put64(0x3000, 0xE000'0000 | 0x27);
        CHECK(w.bytes() == nullptr);
    }
    SECTION("what a user program may not read") {
        w.paging.cpl = 3;
        CHECK(w.bytes() == w.expected());
        w.bench.put64(0x4008, data | 0xE3);
        CHECK(w.bytes() == nullptr);
        w.paging.cpl = 0;
        CHECK(w.bytes() == w.expected());
    }
    SECTION("a user's page, with SMAP") {
        w.paging.cr4 |= cr4::smap;
        CHECK(w.bytes() == nullptr);
    }
    SECTION("what may not be written, or is not dirty yet") {
        w.out.in = true;
        CHECK(w.bytes() == w.expected());
        w.bench.put64(0x4008, data | 0xE5);
        CHECK(w.bytes() == nullptr);
        w.bench.put64(0x4008, data | 0xA7);
        CHECK(w.bytes() == nullptr);
    }
    SECTION("into ROM, which may be read") {
        const auto ranges = w.bench.vm->memory().ranges();
        const auto rom =
            std::find_if(ranges.begin(), ranges.end(), [](const auto& r) { return !r.writable; });
        REQUIRE(rom != ranges.end());
        w.gprs.rsi = w.gprs.rdi = rom->start.raw();
        REQUIRE(rom->start.raw() < 8 * mib);
        CHECK(w.bytes() == rom->host);
        w.out.in = true;
        CHECK(w.bytes() == nullptr);
    }
    SECTION("the local APIC's page, where that hides RAM") {
        REQUIRE(w.bench.apic().write_base((w.bench.apic().base() & 0xFFF) | data));
        CHECK(w.bytes() == nullptr);
        w.gprs.rsi = data + 0x1000;
        CHECK(w.bytes() != nullptr);
    }
    SECTION("five levels") {
        w.paging.cr4 |= cr4::la57;
        CHECK(w.bytes() == nullptr);
    }
}

TEST_CASE("A port that stops the VM has it looked at") {
    World w;
    (void)w.bench.run();  // everything has been looked at
    const auto write = [&w](u16 port, u8 value) {
        w.gprs.rax = value;
        return w.quick.port({.port = Port(port), .size = 1}, w.gprs);
    };
    CHECK(write(0xCF9, 0x02) == QuickExits::Answer::done);
    CHECK_FALSE(w.bench.vm->stopped());
    CHECK(write(0xCF9, 0x06) == QuickExits::Answer::look);
    CHECK(w.bench.vm->stopped());
    CHECK(write(0x80, 1) == QuickExits::Answer::look);
}

TEST_CASE("A move that was decoded before reaches the device; RAM is not one") {
    World w;
    w.bench.put(VmBench::code, {0x8B, 0x03});  // MOV EAX, [RBX]
    w.gprs.rbx = 0xFEC0'0000;
    const CodePlace place{.rip = VmBench::code, .cr3 = 0x2000, .long_mode = true};
    const KnownTranslation known{.physical = GuestPhysical(0xFEC0'0000), .valid = true};
    GuestPhysical address;
    CHECK(w.quick.device_move(place, 0, known, w.gprs, address) == nullptr);
    Instruction decoded;
    const Bytes bytes(w.bench.vm->memory().at(GuestPhysical(VmBench::code), 15), 15);
    REQUIRE(decode(bytes, CodeSize::bits64, decoded) == DecodeStatus::ok);
    constexpr GuestPhysical nowhere{~u64{0}};
    w.quick.instructions.store(place, decoded, bytes, w.bench.vm->memory(), nowhere);
    const Instruction* move = w.quick.device_move(place, 0, known, w.gprs, address);
    REQUIRE(move != nullptr);
    CHECK(address == GuestPhysical(0xFEC0'0000));
    w.bench.vm->mmio_write(0xFEC0'0000, 4, 1, 0);  // IOREGSEL: the version register
    w.gprs.rax = ~u64{0};
    (void)w.quick.move(*move, address, w.gprs);
    CHECK(w.gprs.rax == 1);
    CHECK(w.quick.device_move(place, 3, known, w.gprs, address) == nullptr);  // alignment may matter
    w.gprs.rbx = 0xFEC0'0010;  // not what the hardware translated
    CHECK(w.quick.device_move(place, 0, known, w.gprs, address) == nullptr);
    w.gprs.rbx = data;
    const KnownTranslation ram{.physical = GuestPhysical(data), .valid = true};
    CHECK(w.quick.device_move(place, 0, ram, w.gprs, address) == nullptr);
}

TEST_CASE("The local APIC is looked at again only where something can have come of an access") {
    const auto assist = GENERATE(ApicAssist::none, ApicAssist::tpr);
    World w(assist);
    w.bench.enable_apic();
    (void)w.bench.run();  // everything has been looked at
    REQUIRE_FALSE(w.quick.apic_touched);
    Instruction store;
    const u8 bytes[] = {0xC7, 0x03, 0, 0, 0, 0};  // MOV DWORD [RBX], 0
    REQUIRE(decode(Bytes(bytes, sizeof bytes), CodeSize::bits64, store) == DecodeStatus::ok);
    CHECK(w.quick.move(store, GuestPhysical(0xFEE0'00B0), w.gprs) == QuickExits::Answer::done);  // EOI
    CHECK_FALSE(w.quick.apic_touched);
    w.bench.apic().post(Vector(0x41), false);
    CHECK(w.quick.move(store, GuestPhysical(0xFEE0'00B0), w.gprs) == QuickExits::Answer::look);
    CHECK(w.quick.apic_touched);
    // Likewise one that is known, and waits behind another that is in service.
    LocalApic& apic = w.bench.apic();
    apic.post(Vector(0x81), false);
    apic.collect();
    REQUIRE(apic.acknowledge() == Vector(0x81));
    (void)apic.take_collected();
    w.quick.apic_touched = false;
    CHECK(w.quick.move(store, GuestPhysical(0xFEE0'00B0), w.gprs) == QuickExits::Answer::look);
    w.quick.apic_touched = false;
    if (assist == ApicAssist::tpr) return;
    store.immediate = 0x30;
    CHECK(w.quick.move(store, GuestPhysical(0xFEE0'0080), w.gprs) == QuickExits::Answer::look);
    CHECK(w.bench.cpu().task_priority == 3);
}

TEST_CASE("Where the hardware delivers from the local APIC, every access has it look again") {
    World w(ApicAssist::full);
    w.bench.enable_apic();
    (void)w.bench.run();
    REQUIRE_FALSE(w.quick.apic_touched);
    Instruction store;
    const u8 bytes[] = {0xC7, 0x03, 0, 0, 0, 0};
    REQUIRE(decode(Bytes(bytes, sizeof bytes), CodeSize::bits64, store) == DecodeStatus::ok);
    CHECK(w.quick.move(store, GuestPhysical(0xFEE0'00B0), w.gprs) == QuickExits::Answer::look);
    CHECK(w.quick.apic_touched);
}
