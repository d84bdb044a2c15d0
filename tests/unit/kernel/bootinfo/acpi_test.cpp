#include "kernel/bootinfo/acpi.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>

#include "fake_physical.hpp"

using namespace bulkhead;

namespace {

void fix_checksum(std::vector<u8>& bytes, usize at, usize length) {
    bytes[at] = 0;
    u8 sum = 0;
    for (usize i = 0; i < length; ++i) sum = static_cast<u8>(sum + bytes[i]);
    bytes[at] = static_cast<u8>(0 - sum);
}

ByteWriter table(std::string_view signature, const ByteWriter& content) {
    ByteWriter t;
    t.text(signature).put<u32>(static_cast<u32>(36 + content.bytes.size())).put<u8>(1).put<u8>(0);
    t.text("BOCHS BXPC    ").put<u32>(1).text("BXPC").put<u32>(1);
    t.bytes.insert(t.bytes.end(), content.bytes.begin(), content.bytes.end());
    fix_checksum(t.bytes, 9, t.bytes.size());
    return t;
}

constexpr u8 s5_of_qemu[] = {0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x00, 0x00, 0x00, 0x00};
constexpr u8 s5_of_piix4[] = {0x08, 0x5C, '_',  'S',  '5',  '_',  0x12, 0x08,
                              0x04, 0x0A, 0x05, 0x0A, 0x06, 0x00, 0x00};

ByteWriter rsdp(u32 rsdt, u64 xsdt) {
    ByteWriter r;
    r.text("RSD PTR ").put<u8>(0).text("BOCHS ").put<u8>(xsdt != 0 ? 2 : 0).put<u32>(rsdt);
    fix_checksum(r.bytes, 8, 20);
    if (xsdt != 0) {
        r.put<u32>(36).put<u64>(xsdt).put<u8>(0).zeros(3);
        fix_checksum(r.bytes, 32, 36);
    }
    return r;
}

ByteWriter madt() {
    ByteWriter m;
    m.put<u32>(0xFEE0'0000).put<u32>(1);
    for (u8 i = 0; i < 4; ++i)
        m.put<u8>(0).put<u8>(8).put<u8>(i).put<u8>(static_cast<u8>(2 * i)).put<u32>(i < 3);
    m.put<u8>(9).put<u8>(16).put<u16>(0).put<u32>(0x1000).put<u32>(1).put<u32>(77);    // x2APIC
    m.put<u8>(9).put<u8>(16).put<u16>(0).put<u32>(2).put<u32>(1).put<u32>(1);          // seen above
    m.put<u8>(1).put<u8>(12).put<u8>(5).put<u8>(0).put<u32>(0xFEC0'0000).put<u32>(0);  // I/O APIC
    m.put<u8>(2).put<u8>(10).put<u8>(0).put<u8>(0).put<u32>(2).put<u16>(0);            // IRQ 0 -> 2
    m.put<u8>(2).put<u8>(10).put<u8>(0).put<u8>(9).put<u32>(9).put<u16>(13);           // SCI
    m.put<u8>(4).put<u8>(6).put<u8>(0xFF).put<u16>(0).put<u8>(1);                      // NMI at LINT1
    m.put<u8>(2).put<u8>(10).put<u8>(0).put<u8>(16).put<u32>(16).put<u16>(0);          // no ISA interrupt
    m.put<u8>(0x80).put<u8>(4).put<u16>(0);                                            // unknown
    return table("APIC", m);
}

ByteWriter fadt(u32 dsdt) {
    ByteWriter f;
    f.zeros(244 - 36);
    const auto at = [](usize offset) { return offset - 36; };
    f.set<u32>(at(40), dsdt);
    f.set<u32>(at(48), 0xB2);
    f.set<u8>(at(52), 0xF1);
    f.set<u32>(at(64), 0xB004);
    f.set<u32>(at(76), 0xB008);
    f.set<u8>(at(91), 4);
    f.set<u16>(at(109), 3);
    f.set<u32>(at(112), 1 << 10 | 1 << 8);
    f.set<u8>(at(116), 1);
    f.set<u8>(at(117), 8);
    f.set<u64>(at(120), 0xCF9);
    f.set<u8>(at(128), 0x0F);
    return table("FACP", f);
}

// A machine like QEMU's q35, with its root pointer where a BIOS has it.
FakePhysical machine(bool xsdt = false) {
    FakePhysical memory;
    ByteWriter bios;
    bios.zeros(0x20000);
    const ByteWriter root = rsdp(0x1000'0000, xsdt ? 0x1001'0000 : 0);
    std::copy(root.bytes.begin(), root.bytes.end(), bios.bytes.begin() + 0x14F20);
    memory.add(0xE0000, bios);
    memory.add(0x40E, ByteWriter().put<u16>(0x9FC0));
    memory.add(0x9FC00, ByteWriter().zeros(1024));
    const u64 addresses[] = {0x1000'1000, 0x1000'2000, 0x1000'3000, 0x1000'4000, 0x1000'5000};
    ByteWriter list, long_list;
    for (const u64 address : addresses) list.put<u32>(static_cast<u32>(address));
    for (const u64 address : addresses) long_list.put<u64>(address);
    memory.add(0x1000'0000, table("RSDT", list));
    memory.add(0x1001'0000, table("XSDT", long_list));
    memory.add(addresses[0], fadt(0x1000'6000));
    memory.add(addresses[1], madt());
    memory.add(addresses[2], table("HPET", ByteWriter()
                                               .put<u32>(0x8086A201)
                                               .put<u8>(0)
                                               .put<u8>(64)
                                               .put<u16>(0)
                                               .put<u64>(0xFED0'0000)
                                               .put<u32>(0)));
    memory.add(
        addresses[3],
        table("MCFG",
              ByteWriter().zeros(8).put<u64>(0xB000'0000).put<u16>(0).put<u8>(0).put<u8>(255).zeros(4)));
    memory.add(addresses[4], table("DMAR", ByteWriter().put<u8>(38).put<u8>(0).zeros(10)));
    ByteWriter dsdt;
    dsdt.zeros(100);
    for (const u8 byte : s5_of_qemu) dsdt.put(byte);
    memory.add(0x1000'6000, table("DSDT", dsdt));
    return memory;
}

constinit AcpiInfo info;

void check_machine() {
    REQUIRE(info.processors.size() == 4);
    CHECK(info.processors[1].apic_id == 2);
    CHECK(info.processors[1].uid == 1);
    CHECK(info.processors[3].apic_id == 0x1000);
    CHECK(info.processors[3].uid == 77);
    CHECK(info.local_apic == HostPhysical(0xFEE0'0000));
    CHECK(info.has_legacy_pic);
    REQUIRE(info.io_apics.size() == 1);
    CHECK(info.io_apics[0].address == HostPhysical(0xFEC0'0000));
    REQUIRE(info.overrides.size() == 2);
    CHECK(info.overrides[0].gsi == 2);
    CHECK(info.overrides[1].trigger == AcpiOverride::Trigger::level);
    CHECK(info.overrides[1].polarity == AcpiOverride::Polarity::high);
    REQUIRE(info.local_nmis.size() == 1);
    CHECK(info.local_nmis[0].uid == AcpiLocalNmi::all_processors);
    CHECK(info.pm_timer.address == 0xB008);
    CHECK(info.pm_timer_32_bit);
    CHECK(info.reset_register.address == 0xCF9);
    CHECK(info.reset_value == 0x0F);
    CHECK(info.smi_command_port == 0xB2);
    CHECK(info.acpi_enable_value == 0xF1);
    REQUIRE(info.power_off);
    CHECK(info.power_off->pm1a_control.address == 0xB004);
    CHECK_FALSE(info.power_off->pm1b_control.present());
    CHECK(info.power_off->sleep_type_a == 0);
    CHECK(info.hpet == HostPhysical(0xFED0'0000));
    REQUIRE(info.ecam.size() == 1);
    CHECK(info.ecam[0].base == HostPhysical(0xB000'0000));
    CHECK(info.dmar == HostPhysical(0x1000'5000));
    CHECK_FALSE(info.ivrs);
    CHECK(info.notes.empty());
}

std::string_view code_of(const Result<>& result) {
    return result ? "none" : result.error().text.view().substr(0, 7);
}

}  // namespace

TEST_CASE("tables are found through the BIOS area, by RSDT or XSDT") {
    FakePhysical memory = machine();
    REQUIRE(read_acpi(memory, {}, info));
    check_machine();
    memory = machine(true);
    memory.regions.erase(0x1000'0000);  // no RSDT any more
    REQUIRE(read_acpi(memory, {}, info));
    check_machine();
}

TEST_CASE("the loader's copy of the root pointer goes before the search; a bad copy does not count") {
    FakePhysical memory = machine();
    memory.regions.erase(0xE0000);
    CHECK(code_of(read_acpi(memory, {}, info)) == "HV-E121");
    ByteWriter copy = rsdp(0x1000'0000, 0);
    REQUIRE(read_acpi(memory, copy.bytes, info));
    check_machine();
    ++copy.bytes[17];
    CHECK(code_of(read_acpi(memory, copy.bytes, info)) == "HV-E121");
    CHECK(info.processors.empty());
    // In the extended BIOS data area.
    const ByteWriter good = rsdp(0x1000'0000, 0);
    std::copy(good.bytes.begin(), good.bytes.end(), memory.regions[0x9FC00].begin() + 0x3D0);
    CHECK(read_acpi(memory, {}, info));
}

TEST_CASE(
    "an XSDT that is corrupt gives way to the RSDT, a root pointer with a bad extended checksum to its old "
    "half") {
    FakePhysical memory = machine(true);
    ++memory.regions[0x1001'0000][40];
    REQUIRE(read_acpi(memory, {}, info));
    CHECK(info.processors.size() == 4);
    memory = machine(true);
    ++memory.regions[0xE0000][0x14F20 + 30];
    REQUIRE(read_acpi(memory, {}, info));
    CHECK(info.processors.size() == 4);
}

TEST_CASE("a corrupt MADT means one processor, and nothing of the rest is believed") {
    for (const usize byte : {usize{5}, usize{50}, usize{9}}) {
        FakePhysical memory = machine();
        memory.regions[0x1000'2000][byte] ^= 0x41;
        CHECK(code_of(read_acpi(memory, {}, info)) == "HV-E122");
        CHECK(info.processors.empty());
        CHECK_FALSE(info.pm_timer.present());
        CHECK(info.local_apic == HostPhysical(0xFEE0'0000));
    }
    // An entry of length 0 or 1 would go round for ever, one beyond the end out of bounds.
    for (const u8 length : {0, 1, 255}) {
        FakePhysical memory = machine();
        memory.regions[0x1000'2000][45] = length;
        fix_checksum(memory.regions[0x1000'2000], 9, memory.regions[0x1000'2000].size());
        CHECK(code_of(read_acpi(memory, {}, info)) == "HV-E122");
    }
    FakePhysical memory = machine();
    memory.add(0x1000'2000, table("APIC", ByteWriter().put<u32>(0xFEE0'0000).put<u32>(0)));
    CHECK(code_of(read_acpi(memory, {}, info)) == "HV-E123");
}

TEST_CASE("other tables that are corrupt are noted and left out") {
    FakePhysical memory = machine();
    for (const u64 address : {0x1000'1000, 0x1000'3000, 0x1000'4000, 0x1000'5000})
        ++memory.regions[address][37];
    REQUIRE(read_acpi(memory, {}, info));
    CHECK(info.processors.size() == 4);
    CHECK_FALSE(info.pm_timer.present());
    CHECK_FALSE(info.hpet);
    CHECK(info.ecam.empty());
    CHECK_FALSE(info.dmar);
    REQUIRE(info.notes.size() == 4);
    CHECK(info.notes[0].view().starts_with("HV-E122: ACPI table FACP at 0x10001000: its checksum is wrong"));
}

TEST_CASE("a table that is too short for what it is, or longer than any, is refused for that") {
    FakePhysical memory = machine();
    memory.add(0x1000'1000, table("FACP", ByteWriter().zeros(10)));
    REQUIRE(read_acpi(memory, {}, info));
    REQUIRE(info.notes.size() == 1);
    CHECK(info.notes[0].view().starts_with("HV-E122: ACPI table FACP at 0x10001000: its length is wrong"));
    CHECK_FALSE(info.pm_timer.present());
    for (const u32 length : {u32{0}, u32{35}, u32{40}, ~u32{0}}) {
        memory = machine();
        std::memcpy(memory.regions[0x1000'2000].data() + 4, &length, sizeof length);
        const auto read = read_acpi(memory, {}, info);
        REQUIRE_FALSE(read);
        CHECK(read.error().text.view().starts_with(
            "HV-E122: ACPI table APIC at 0x10002000: its length is wrong"));
    }
}

TEST_CASE("without a plain _S5 there is no power off, and the rest stands") {
    FakePhysical memory = machine();
    memory.regions[0x1000'6000][36 + 101] = 'X';
    fix_checksum(memory.regions[0x1000'6000], 9, memory.regions[0x1000'6000].size());
    REQUIRE(read_acpi(memory, {}, info));
    CHECK_FALSE(info.power_off);
    CHECK(info.notes.size() == 1);
    CHECK(info.pm_timer.present());
    memory.regions.erase(0x1000'6000);
    REQUIRE(read_acpi(memory, {}, info));
    CHECK_FALSE(info.power_off);
}

TEST_CASE("_S5 is found by its bytes, and only where they are a package of integers") {
    CHECK(find_s5(s5_of_qemu)->a == 0);
    const auto piix4 = find_s5(s5_of_piix4);
    REQUIRE(piix4);
    CHECK(piix4->a == 5);
    CHECK(piix4->b == 6);
    constexpr u8 wide[] = {0x08, '_',  'S',  '5',  '_',  0x12, 0x40, 0x01, 0x02,
                           0x0B, 0x07, 0x00, 0x0C, 0x01, 0,    0,    0};
    CHECK(find_s5(wide)->a == 7);
    CHECK(find_s5(wide)->b == 1);
    constexpr u8 reference[] = {'X', '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x00, 0x00};
    CHECK_FALSE(find_s5(reference));
    constexpr u8 too_large[] = {0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x0A, 0x08, 0x00};
    CHECK_FALSE(find_s5(too_large));
    for (usize length = 0; length < 10; ++length) CHECK_FALSE(find_s5(Bytes(s5_of_qemu).first(length)));
    CHECK(find_s5(Bytes(s5_of_qemu).first(10)));  // the two elements that matter
}

TEST_CASE("lists longer than there is room for are cut and noted") {
    ByteWriter m;
    m.put<u32>(0xFEE0'0000).put<u32>(0);
    for (u32 i = 0; i < 300; ++i) m.put<u8>(9).put<u8>(16).put<u16>(0).put<u32>(i).put<u32>(1).put<u32>(i);
    for (u8 i = 0; i < 20; ++i)
        m.put<u8>(1).put<u8>(12).put<u8>(i).put<u8>(0).put<u32>(0xFEC0'0000).put<u32>(i);
    FakePhysical memory = machine();
    memory.add(0x1000'2000, table("APIC", m));
    REQUIRE(read_acpi(memory, {}, info));
    CHECK(info.processors.size() == 256);
    CHECK(info.processors_left_out == 44);
    CHECK(info.io_apics.size() == 16);
    CHECK_FALSE(info.notes.empty());
    CHECK_FALSE(info.has_legacy_pic);
}

TEST_CASE("no change of bytes, checksums put right, makes the parser read out of bounds or run long") {
    std::mt19937 random(6);
    const FakePhysical good = machine(true);
    unsigned survived = 0;
    for (int round = 0; round < 1500; ++round) {
        FakePhysical memory = good;
        for (unsigned n = 1 + random() % 4; n > 0; --n) {
            auto region = std::next(memory.regions.lower_bound(0x1000'0000), static_cast<long>(random() % 8));
            auto& bytes = region->second;
            bytes[random() % bytes.size()] = random() % 3 == 0 ? 0xFF : static_cast<u8>(random());
            fix_checksum(bytes, 9, bytes.size());
        }
        survived += read_acpi(memory, {}, info).has_value();
        if (memory.reads > 1000) FAIL("too many reads");
    }
    CHECK(survived > 300);
}
