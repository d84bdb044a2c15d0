#include "vmm/instruction_cache.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

using namespace bulkhead;

namespace {

constexpr u64 pml4 = 0x1000, pdpt = 0x2000, directory = 0x3000, table = 0x4000, code_page = 0x5000;
constexpr u64 rip = 0xFFFF'8000'0040'1010;
constexpr GuestPhysical no_page{~u64{0}};

// 64 KiB of RAM with the four tables that lead from `rip` to code_page + 10h.
struct Machine {
    alignas(4096) static inline u8 ram[0x10000];
    GuestMemory memory;
    InstructionCache cache;
    CodePlace place{.rip = rip, .cr3 = pml4, .long_mode = true};

    Machine() {
        std::memset(ram, 0, sizeof ram);
        REQUIRE(memory.add({.start = GuestPhysical(0), .length = sizeof ram, .host = ram}).has_value());
        set(pml4, 256, pdpt | 0x23);
        set(pdpt, 0, directory | 0x23);
        set(directory, 2, table | 0x23);
        set(table, 1, code_page | 0x63);
        put(code_page + 0x10, {0x0F, 0xA2});  // CPUID
    }
    void set(u64 page, unsigned index, u64 value) { std::memcpy(ram + page + u64{index} * 8, &value, 8); }
    void put(u64 at, const std::vector<u8>& bytes) { std::memcpy(ram + at, bytes.data(), bytes.size()); }
    void store(u64 at = code_page + 0x10, GuestPhysical hidden = no_page) {
        Instruction instruction;
        const Bytes bytes(ram + at, 15);
        REQUIRE(decode(bytes, CodeSize::bits64, instruction) == DecodeStatus::ok);
        cache.store(place, instruction, bytes, memory, hidden);
    }
    [[nodiscard]] unsigned length() const {
        const auto* found = cache.find(place);
        return found != nullptr ? found->instruction.length : 0;
    }
};

}  // namespace

TEST_CASE("What was decoded is found where it was, and nowhere else") {
    Machine m;
    CHECK(m.length() == 0);
    m.store();
    CHECK(m.length() == 2);
    CHECK(m.cache.find(m.place)->bytes[1] == 0xA2);
    m.place.rip += 1;
    CHECK(m.length() == 0);
    m.place.rip = rip;
    m.place.cr3 = 0x6000;
    CHECK(m.length() == 0);
    m.place.cr3 = pml4;
    m.place.long_mode = false;
    CHECK(m.length() == 0);
    m.place.long_mode = true;
    CHECK(m.length() == 2);
    m.cache.clear();
    CHECK(m.length() == 0);
}

TEST_CASE("Where nothing was kept nothing is found, whatever address the guest runs at") {
    Machine m;
    const auto look = [&] {
        for (const u64 at : {~u64{0}, u64{0}, bit(63), bit(63) - 1, rip})
            for (const u64 root : {u64{0}, pml4, ~u64{0}}) {
                m.place.rip = at;
                m.place.cr3 = root;
                CHECK(m.cache.find(m.place) == nullptr);
            }
        m.place = {.rip = rip, .cr3 = pml4, .long_mode = true};
    };
    look();
    for (u64 i = 0; i < 32; ++i) {
        m.put(code_page + 0x10 + i, {0xF4});
        m.place.rip = rip + i;
        m.store(code_page + 0x10 + i);
        CHECK(m.length() == 1);
    }
    m.cache.clear();
    look();
}

TEST_CASE("Code that was rewritten is not what was decoded") {
    Machine m;
    m.store();
    m.put(code_page + 0x11, {0x31});
    CHECK(m.length() == 0);
    m.put(code_page + 0x11, {0xA2});
    CHECK(m.length() == 2);
    m.put(code_page + 0x12, {0xCC});  // behind it
    CHECK(m.length() == 2);
}

TEST_CASE("Every byte of a long instruction counts") {
    Machine m;
    // MOV DWORD [RDI + 12345678h], 9ABCDEF0h: ten bytes
    m.put(code_page + 0x10, {0xC7, 0x87, 0x78, 0x56, 0x34, 0x12, 0xF0, 0xDE, 0xBC, 0x9A});
    m.store();
    REQUIRE(m.length() == 10);
    for (unsigned i = 0; i < 10; ++i) {
        m.ram[code_page + 0x10 + i] ^= 0x40;
        CHECK(m.length() == 0);
        m.ram[code_page + 0x10 + i] ^= 0x40;
        CHECK(m.length() == 10);
    }
}

TEST_CASE("A change of any paging entry on the way is seen") {
    Machine m;
    m.store();
    const struct {
        u64 page;
        unsigned index;
        u64 value;
    } ways[] = {{pml4, 256, pdpt | 0x23},
                {pdpt, 0, directory | 0x23},
                {directory, 2, table | 0x23},
                {table, 1, code_page | 0x63}};
    for (const auto& way : ways) {
        m.set(way.page, way.index, 0);
        CHECK(m.length() == 0);
        m.set(way.page, way.index, 0x7023);
        CHECK(m.length() == 0);
        m.set(way.page, way.index, way.value);
        CHECK(m.length() == 2);
    }
}

TEST_CASE("Large pages end the way earlier") {
    Machine m;
    SECTION("2 MiB") {
        m.set(directory, 2, 0 | 0xE3);
        m.place.rip = rip + 0x5000 - 0x1000;  // offset 5010h of the large page
    }
    SECTION("1 GiB") {
        m.set(pdpt, 0, 0 | 0xE3);
        m.place.rip = rip - 0x401000 + 0x5000;
    }
    m.store();
    CHECK(m.length() == 2);
    m.put(code_page + 0x10, {0x90});
    CHECK(m.length() == 0);
}

TEST_CASE("What cannot be checked later is not kept") {
    Machine m;
    SECTION("a table that is not RAM") {
        m.set(directory, 2, 0x100000 | 0x23);
    }
    SECTION("code that is not RAM") {
        m.set(table, 1, 0x100000 | 0x63);
    }
    SECTION("a root that is not RAM") {
        m.place.cr3 = 0x000F'FFFF'FFFF'F000;
    }
    SECTION("an entry that is not present") {
        m.set(table, 1, code_page | 0x62);
    }
    SECTION("an entry without its accessed bit") {
        m.set(pdpt, 0, directory | 3);
    }
    SECTION("a large page of 512 GiB") {
        m.set(pml4, 256, pdpt | 0xA3);
    }
    SECTION("another mode") {
        m.place.long_mode = false;
    }
    SECTION("an instruction that may reach into the next page") {
        m.place.rip = rip - 0x10 + 0xFF5;
        m.put(code_page + 0xFF5, {0x0F, 0xA2});
        m.store(code_page + 0xFF5);
        m.place.long_mode = true;
        CHECK(m.length() == 0);
        return;
    }
    SECTION("code under the local APIC's page") {
        m.store(code_page + 0x10, GuestPhysical(code_page));
        CHECK(m.length() == 0);
        return;
    }
    SECTION("a table under the local APIC's page") {
        m.store(code_page + 0x10, GuestPhysical(directory));
        CHECK(m.length() == 0);
        return;
    }
    SECTION("bytes that are not those in memory") {
        m.set(table, 1, 0x6000 | 0x63);
        m.put(0x6010, {0x0F, 0x31});
    }
    m.store();
    m.place.long_mode = true;
    CHECK(m.length() == 0);
}

TEST_CASE("Instructions whose places collide take turns") {
    Machine m;
    m.store();
    const CodePlace first = m.place;
    m.place.rip = rip + 0x880;                     // the same slot
    m.put(code_page + 0x890, {0x0F, 0x01, 0xD9});  // VMMCALL
    m.store(code_page + 0x890);
    CHECK(m.length() == 3);
    m.place = first;
    CHECK(m.length() == 0);
    m.store();
    CHECK(m.length() == 2);
}
