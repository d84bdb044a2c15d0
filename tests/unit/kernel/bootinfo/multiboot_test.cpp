#include <catch2/catch.hpp>
#include <random>

#include "fake_physical.hpp"
#include "kernel/bootinfo/multiboot1.hpp"
#include "kernel/bootinfo/multiboot2.hpp"

using namespace bulkhead;

namespace {

constexpr u64 at = 0x10000;

// A Multiboot 1 machine as GRUB 2 leaves it: 128 MiB, two modules, a linear framebuffer.
FakePhysical multiboot1_machine() {
    FakePhysical memory;
    ByteWriter info;
    info.zeros(118);
    info.set<u32>(0, 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 12);
    info.set<u32>(16, 0x11000);  // command line
    info.set<u32>(20, 2);
    info.set<u32>(24, 0x12000);  // modules
    info.set<u32>(28, 10);
    info.set<u32>(32, 64);
    info.set<u32>(36, 0x9000);
    info.set<u32>(40, 9);
    info.set<u32>(44, 3 * 24);
    info.set<u32>(48, 0x13000);  // memory map
    info.set<u32>(64, 0x14000);  // loader's name
    info.set<u64>(88, 0xFD00'0000);
    info.set<u32>(96, 4096);
    info.set<u32>(100, 1024);
    info.set<u32>(104, 768);
    info.set<u8>(108, 32);
    info.set<u8>(109, 1);
    for (usize i = 0; i < 6; ++i) info.set<u8>(110 + i, std::array<u8, 6>{16, 8, 8, 8, 0, 8}[i]);
    memory.add(at, info);
    memory.add_text(0x11000, "console=com1 loglevel=debug");
    memory.add(0x12000, ByteWriter()
                            .put<u32>(0x80'0000)
                            .put<u32>(0x80'1234)
                            .put<u32>(0x15000)
                            .put<u32>(0)
                            .put<u32>(0x90'0000)
                            .put<u32>(0xA0'0000)
                            .put<u32>(0x15100)
                            .put<u32>(0));
    memory.add(0x13000, ByteWriter()
                            .put<u32>(20)
                            .put<u64>(0)
                            .put<u64>(0x9FC00)
                            .put<u32>(1)
                            .put<u32>(20)
                            .put<u64>(0xF0000)
                            .put<u64>(0x10000)
                            .put<u32>(2)
                            .put<u32>(20)
                            .put<u64>(0x100000)
                            .put<u64>(127 * mib)
                            .put<u32>(1));
    memory.add_text(0x14000, "GRUB 2.06");
    memory.add_text(0x15000, "bulkhead.toml");
    memory.add_text(0x15100, " vmlinuz   console=ttyS0 quiet ");
    return memory;
}

ByteWriter& tag(ByteWriter& writer, u32 type, const ByteWriter& content) {
    writer.zeros((8 - writer.bytes.size() % 8) % 8);
    writer.put<u32>(type).put<u32>(static_cast<u32>(8 + content.bytes.size()));
    writer.bytes.insert(writer.bytes.end(), content.bytes.begin(), content.bytes.end());
    return writer;
}

ByteWriter finish(ByteWriter writer) {
    tag(writer, 0, {});
    writer.set<u32>(0, static_cast<u32>(writer.bytes.size()));
    return writer;
}

ByteWriter memory_map_tag() {
    return ByteWriter()
        .put<u32>(24)
        .put<u32>(0)
        .put<u64>(0)
        .put<u64>(0x9FC00)
        .put<u32>(1)
        .put<u32>(0)
        .put<u64>(0x100000)
        .put<u64>(127 * mib)
        .put<u32>(1)
        .put<u32>(0)
        .put<u64>(0x7F0'0000)
        .put<u64>(mib)
        .put<u32>(3)
        .put<u32>(0)
        .put<u64>(0xFFFC'0000)
        .put<u64>(0x40000)
        .put<u32>(77)
        .put<u32>(0);
}

// The same by Multiboot 2.
ByteWriter multiboot2_information() {
    ByteWriter info;
    info.zeros(8);
    tag(info, 1, ByteWriter().text("console=com2").put<u8>(0));
    tag(info, 2, ByteWriter().text("GRUB 2.06").put<u8>(0));
    tag(info, 10, ByteWriter().zeros(20));  // APM: not of interest
    tag(info, 3, ByteWriter().put<u32>(0x80'0000).put<u32>(0x80'1234).text("bulkhead.toml").put<u8>(0));
    tag(info, 3, ByteWriter().put<u32>(0x90'0000).put<u32>(0xA0'0000).text("vmlinuz quiet").put<u8>(0));
    tag(info, 6, memory_map_tag());
    tag(info, 8,
        ByteWriter()
            .put<u64>(0xB8000)
            .put<u32>(160)
            .put<u32>(80)
            .put<u32>(25)
            .put<u8>(16)
            .put<u8>(2)
            .put<u16>(0));
    tag(info, 9, ByteWriter().put<u32>(2).put<u32>(64).put<u32>(1).zeros(128));
    tag(info, 14, ByteWriter().text("RSD PTR ").zeros(12));
    tag(info, 15, ByteWriter().text("RSD PTR ").put<u8>(0).text("BOCHS ").put<u8>(2).zeros(20));
    return finish(info);
}

std::string_view code_of(const Result<>& result) {
    return result ? "none" : result.error().text.view().substr(0, 7);
}

constinit BootInfo info;  // static, as it has to be

Result<> parse1(FakePhysical& memory) {
    return multiboot1::parse(memory, HostPhysical(at), info);
}
Result<> parse2(const ByteWriter& bytes) {
    FakePhysical memory;
    memory.add(at, bytes);
    return multiboot2::parse(memory, HostPhysical(at), info);
}

}  // namespace

TEST_CASE("Multiboot 1 information is understood") {
    FakePhysical memory = multiboot1_machine();
    REQUIRE(parse1(memory));
    CHECK(info.protocol == BootInfo::Protocol::multiboot1);
    CHECK(info.command_line == "console=com1 loglevel=debug");
    CHECK(info.loader_name == "GRUB 2.06");
    REQUIRE(info.memory.ranges().size() == 3);
    CHECK(info.memory.usable_bytes() == 127 * mib + 0x9FC00);
    REQUIRE(info.modules.size() == 2);
    CHECK(info.modules[0].name == "bulkhead.toml");
    CHECK(info.modules[0].rest.empty());
    CHECK(info.modules[0].size() == 0x1234);
    CHECK(info.modules[1].name == "vmlinuz");
    CHECK(info.modules[1].rest == "console=ttyS0 quiet");
    CHECK(info.framebuffer.kind == Framebuffer::Kind::rgb);
    CHECK(info.framebuffer.address == HostPhysical(0xFD00'0000));
    CHECK(info.framebuffer.pitch == 4096);
    CHECK(info.framebuffer.red.position == 16);
    CHECK(info.framebuffer.blue.width == 8);
    CHECK(info.elf_sections.count == 10);
    CHECK(info.rsdp.empty());
    CHECK(check(info, HostPhysical(2 * mib), HostPhysical(6 * mib)));
}

TEST_CASE(
    "Multiboot 1: the framebuffer's colours are found where the specification has them and where GRUB has") {
    FakePhysical memory = multiboot1_machine();
    std::vector<u8>& bytes = memory.regions[at];
    std::copy_backward(bytes.begin() + 110, bytes.begin() + 116, bytes.begin() + 118);
    bytes[110] = bytes[111] = 0;
    REQUIRE(parse1(memory));
    CHECK(info.framebuffer.red.position == 16);
    CHECK(info.framebuffer.red.width == 8);
    CHECK(info.framebuffer.green.position == 8);
    CHECK(info.framebuffer.blue.position == 0);
    CHECK(info.framebuffer.blue.width == 8);
}

TEST_CASE("Multiboot 2 information is understood") {
    REQUIRE(parse2(multiboot2_information()));
    CHECK(info.protocol == BootInfo::Protocol::multiboot2);
    CHECK(info.command_line == "console=com2");
    CHECK(info.loader_name == "GRUB 2.06");
    REQUIRE(info.memory.ranges().size() == 4);
    CHECK(info.memory.ranges()[2].kind == MemoryKind::acpi_reclaimable);
    CHECK(info.memory.ranges()[3].kind == MemoryKind::reserved);  // an unknown type
    REQUIRE(info.modules.size() == 2);
    CHECK(info.modules[0].name == "bulkhead.toml");
    CHECK(info.modules[1].rest == "quiet");
    CHECK(info.framebuffer.kind == Framebuffer::Kind::text);
    CHECK(info.framebuffer.width == 80);
    CHECK(info.elf_sections.count == 2);
    CHECK(info.rsdp.size() == 36);
    CHECK(info.information_size == multiboot2_information().bytes.size());
    CHECK(check(info, HostPhysical(2 * mib), HostPhysical(6 * mib)));
}

TEST_CASE("Multiboot 1: each field may be missing but the memory map") {
    for (const unsigned flag : {2u, 3u, 5u, 9u, 12u}) {
        FakePhysical memory = multiboot1_machine();
        memory.regions[at][flag / 8] &= static_cast<u8>(~(1u << flag % 8));
        CHECK(parse1(memory));
    }
    FakePhysical memory = multiboot1_machine();
    memory.regions[at][0] &= static_cast<u8>(~(1u << 6));
    CHECK(code_of(parse1(memory)) == "HV-E103");
    memory = multiboot1_machine();
    memory.regions.erase(at);
    CHECK(code_of(parse1(memory)) == "HV-E102");
    CHECK(code_of(multiboot1::parse(memory, HostPhysical(0), info)) == "HV-E102");
}

TEST_CASE("Multiboot 1: pointers to nowhere, sizes that lie, too many modules") {
    const auto with = [](u64 offset, u32 value) {
        FakePhysical memory = multiboot1_machine();
        std::memcpy(memory.regions[at].data() + offset, &value, 4);
        return parse1(memory);
    };
    CHECK(code_of(with(48, 0xFFFF'FFF0)) == "HV-E102");  // the map is nowhere
    CHECK(code_of(with(44, 0xFFFF'FFFF)) == "HV-E102");  // or endless
    CHECK(code_of(with(24, 0xFFFF'FFF8)) == "HV-E102");  // the modules are nowhere
    CHECK(code_of(with(20, 65)) == "HV-E106");
    CHECK(code_of(with(20, 0xFFFF'FFFF)) == "HV-E106");
    CHECK(code_of(with(20, 3)) == "HV-E102");  // one more than there is
    CHECK(with(16, 0xFFFF'FFFF));              // an unreadable command line is an empty one
    CHECK(info.command_line.empty());

    FakePhysical memory = multiboot1_machine();
    memory.regions[0x13000][0] = 19;
    CHECK(code_of(parse1(memory)) == "HV-E104");
    memory.regions[0x13000][0] = 200;
    CHECK(code_of(parse1(memory)) == "HV-E104");
    memory = multiboot1_machine();
    std::fill_n(memory.regions[0x13000].begin() + 4 + 48, 16, 0xFF);  // start and length: wraps
    CHECK(code_of(parse1(memory)) == "HV-E104");
    memory = multiboot1_machine();
    memory.regions[0x12000][7] = 0;
    memory.regions[0x12000][6] = 0;  // the end is before the start
    CHECK(code_of(parse1(memory)) == "HV-E107");
}

TEST_CASE("Multiboot 1: a command line without an end, and strings beyond the room there is") {
    FakePhysical memory = multiboot1_machine();
    memory.add(0x11000, ByteWriter().text(std::string(4096, 'a')));  // no NUL, then nothing
    REQUIRE(parse1(memory));
    CHECK(info.command_line.size() == 4096);
    memory.add(0x15000, ByteWriter().text(std::string(4096, 'b')));
    memory.add(0x15000 + 4096, ByteWriter().text(std::string(8192, 'c')));
    memory.add(0x14000, ByteWriter().text(std::string(4096, 'd')));
    std::vector<u8>& modules = memory.regions[0x12000];
    const u32 second = 0x15000 + 4096;
    std::memcpy(modules.data() + 24, &second, 4);
    CHECK(code_of(parse1(memory)) == "none");  // 4 times 4 KiB: just fits
    std::vector<u8> third(modules.begin(), modules.begin() + 16);
    modules.insert(modules.end(), third.begin(), third.end());
    memory.regions[at][20] = 3;
    CHECK(code_of(parse1(memory)) == "HV-E108");
}

TEST_CASE("Multiboot 2: sizes that lie are found out") {
    ByteWriter good = multiboot2_information();
    const auto with = [&](u64 offset, u32 value) {
        ByteWriter bytes = good;
        bytes.set<u32>(offset, value);
        return parse2(bytes);
    };
    for (const u32 size : {0u, 8u, 15u, 0xFFFF'FFFFu, static_cast<u32>(good.bytes.size() + 1)}) {
        CHECK(code_of(with(0, size)) == "HV-E102");
    }
    CHECK(code_of(with(0, static_cast<u32>(good.bytes.size() - 8))) == "HV-E102");  // without the last tag
    for (const u32 size : {0u, 7u, 0x10000u, 0xFFFF'FFF9u, 0xFFFF'FFFFu})
        CHECK(code_of(with(12, size)) == "HV-E102");
    FakePhysical memory;
    memory.add(at, good);
    CHECK(code_of(multiboot2::parse(memory, HostPhysical(at + 4), info)) == "HV-E102");
    CHECK(code_of(multiboot2::parse(memory, HostPhysical(0), info)) == "HV-E102");
    CHECK(code_of(multiboot2::parse(memory, HostPhysical(~u64{7}), info)) == "HV-E102");
}

TEST_CASE("Multiboot 2: malformed tags") {
    const auto only = [](u32 type, const ByteWriter& content) {
        ByteWriter bytes;
        bytes.zeros(8);
        tag(bytes, type, content);
        return parse2(finish(bytes));
    };
    CHECK(code_of(only(1, ByteWriter().text("x"))) == "HV-E103");  // no memory map
    CHECK(code_of(only(3, ByteWriter().put<u32>(5))) == "HV-E102");
    CHECK(code_of(only(6, {})) == "HV-E104");
    CHECK(code_of(only(6, ByteWriter().put<u32>(0).put<u32>(0))) == "HV-E104");  // entries of no size
    CHECK(code_of(only(6, ByteWriter().put<u32>(24).put<u32>(0).put<u64>(~u64{0}).put<u64>(2).put<u64>(1))) ==
          "HV-E104");
    CHECK(code_of(only(8, ByteWriter().zeros(4))) == "HV-E103");  // a short framebuffer tag is no framebuffer
    CHECK(info.framebuffer.kind == Framebuffer::Kind::none);
    CHECK(code_of(only(9, ByteWriter().put<u32>(1000).put<u32>(64).put<u32>(1))) == "HV-E103");
    CHECK(info.elf_sections.count == 0);
    ByteWriter many;
    many.zeros(8);
    for (int i = 0; i < 65; ++i) tag(many, 3, ByteWriter().put<u32>(4096).put<u32>(8192).put<u8>(0));
    CHECK(code_of(parse2(finish(many))) == "HV-E106");
}

TEST_CASE("modules outside usable memory, over the hypervisor or over one another are refused") {
    const auto place = [](u32 start, u32 end, u32 start2, u32 end2) {
        ByteWriter bytes;
        bytes.zeros(8);
        tag(bytes, 6, memory_map_tag());
        tag(bytes, 3, ByteWriter().put<u32>(start).put<u32>(end).put<u8>(0));
        tag(bytes, 3, ByteWriter().put<u32>(start2).put<u32>(end2).put<u8>(0));
        REQUIRE(parse2(finish(bytes)));
        return check(info, HostPhysical(2 * mib), HostPhysical(6 * mib));
    };
    CHECK(place(0x60'0000, 0x70'0000, 0x70'0000, 0x70'0001));
    CHECK(code_of(place(0x60'0000, 0x70'0001, 0x70'0000, 0x70'0001)) == "HV-E107");
    CHECK(code_of(place(0x5F'FFFF, 0x60'1000, 0, 0)) == "HV-E107");
    CHECK(code_of(place(0x7E0'0000, 0x7F0'0001, 0, 0)) == "HV-E107");  // into the ACPI tables
    CHECK(code_of(place(0x9000'0000, 0x9000'1000, 0, 0)) == "HV-E107");
    CHECK(place(0x60'0000, 0x60'0000, 0x9000'0000, 0x9000'0000));  // empty files
}

TEST_CASE("no change of bytes makes the parsers read out of bounds or run long") {
    std::mt19937 random(4);
    const ByteWriter good = multiboot2_information();
    unsigned survived = 0;
    for (int round = 0; round < 20000; ++round) {
        ByteWriter bytes = good;
        for (unsigned n = 1 + random() % 4; n > 0; --n) {
            bytes.bytes[random() % bytes.bytes.size()] = random() % 3 == 0 ? 0xFF : static_cast<u8>(random());
        }
        survived += parse2(bytes).has_value();
        (void)check(info, HostPhysical(2 * mib), HostPhysical(6 * mib));
    }
    CHECK(survived > 1000);
    for (int round = 0; round < 5000; ++round) {
        FakePhysical memory = multiboot1_machine();
        for (unsigned n = 1 + random() % 4; n > 0; --n) {
            auto region =
                std::next(memory.regions.begin(), static_cast<long>(random() % memory.regions.size()));
            region->second[random() % region->second.size()] =
                random() % 3 == 0 ? 0xFF : static_cast<u8>(random());
        }
        (void)parse1(memory);
        if (memory.reads > 1000) FAIL("too many reads");
    }
}
