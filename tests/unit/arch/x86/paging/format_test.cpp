#include "arch/x86/paging/format.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;

namespace {

constexpr MemoryType all_types[] = {MemoryType::uncacheable, MemoryType::write_combining,
                                    MemoryType::write_through, MemoryType::write_protected,
                                    MemoryType::write_back};

}  // namespace

TEST_CASE("a page level covers 4 KiB, 2 MiB, 1 GiB or 512 GiB") {
    CHECK(bytes_at_level(1) == 4 * kib);
    CHECK(bytes_at_level(2) == 2 * mib);
    CHECK(bytes_at_level(3) == 1 * gib);
    CHECK(bytes_at_level(4) == 512 * gib);
}

TEST_CASE("host entries have the bits of the manual's table of 4-level paging") {
    // P, R/W, A, D, address, NX; write-back is PAT index 0.
    CHECK(host_paging.leaf(HostPhysical(0x1234'5000), {.permissions = read_write}, 1) ==
          0x8000'0000'1234'5063);
    // Code, read-only, global.
    CHECK(host_paging.leaf(HostPhysical(0x20'0000), {.permissions = read_execute, .global = true}, 2) ==
          0x20'01A1);
    // Read-only and dirty is a shadow stack's page; nothing else that is read-only may be dirty.
    CHECK(host_paging.leaf(HostPhysical(0x5000), {.permissions = read_only, .shadow_stack = true}, 1) ==
          0x8000'0000'0000'5061);
    CHECK(host_paging.leaf(HostPhysical(0x5000), {.permissions = read_only}, 1) == 0x8000'0000'0000'5021);
    // Uncacheable is PAT index 3: PWT and PCD.
    CHECK(host_paging.leaf(HostPhysical(0xFEE0'0000),
                           {.permissions = read_write, .type = MemoryType::uncacheable},
                           1) == 0x8000'0000'FEE0'007B);
    // Write-combining is PAT index 4: bit 7 in a small page, bit 12 in a large one.
    const PageAttributes combining{.permissions = read_write, .type = MemoryType::write_combining};
    CHECK(host_paging.leaf(HostPhysical(0), combining, 1) == 0x8000'0000'0000'00E3);
    CHECK(host_paging.leaf(HostPhysical(0), combining, 2) == 0x8000'0000'0000'10E3);
    CHECK(host_paging.table(HostPhysical(0x7000)) == 0x7023);
    CHECK_FALSE(host_paging.is_present(host_paging.absent));
    CHECK_FALSE(
        has_bit(host_paging.leaf(HostPhysical(0), {.permissions = read_write_execute}, 1), 2));  // never user
}

TEST_CASE("EPT entries have the bits of the manual's EPT tables") {
    CHECK(ept_paging.leaf(HostPhysical(0x20'0000), {.permissions = read_write_execute}, 2) ==
          0x8000'0000'0020'03B7);
    CHECK(ept_paging.leaf(HostPhysical(0xFEE0'0000),
                          {.permissions = read_write, .type = MemoryType::uncacheable, .ignore_pat = true},
                          1) == 0x8000'0000'FEE0'0343);
    CHECK(ept_paging.table(HostPhysical(0x7000)) == 0x7107);
    CHECK(ept_paging.absent == bit(63));
    CHECK_FALSE(ept_paging.is_present(ept_paging.absent));
    // Execute-only is present; an entry with write but not read cannot be asked for.
    const u64 execute_only = ept_paging.leaf(HostPhysical(0), {.permissions = {.execute = true}}, 1);
    CHECK(ept_paging.is_present(execute_only));
    CHECK_FALSE(has_bit(execute_only, 0));
}

TEST_CASE("NPT entries are host entries with the user bit") {
    CHECK(npt_paging.leaf(HostPhysical(0x20'0000), {.permissions = read_write_execute}, 2) == 0x20'00E7);
    CHECK(npt_paging.leaf(HostPhysical(0x1000), {.permissions = read_only}, 1) == 0x8000'0000'0000'1065);
    CHECK(npt_paging.table(HostPhysical(0x7000)) == 0x7027);
}

TEST_CASE("what an entry was made of can be read back, in every format, level, type and permission") {
    for (const PagingFormat* format : {&host_paging, &ept_paging, &npt_paging}) {
        for (unsigned level = 1; level <= 3; ++level) {
            for (const MemoryType type : all_types) {
                for (unsigned bits = 0; bits < 64; ++bits) {
                    const PageAttributes wanted{
                        .permissions = {has_bit(bits, 0), has_bit(bits, 1), has_bit(bits, 2)},
                        .type = type,
                        .global = has_bit(bits, 3),
                        .ignore_pat = has_bit(bits, 4),
                        .shadow_stack = has_bit(bits, 5)};
                    if (!format->supports(wanted)) continue;
                    const HostPhysical physical(0x000A'BCDE'4000'0000 + bytes_at_level(level));
                    const u64 entry = format->leaf(physical, wanted, level);
                    INFO(format->name << " level " << level << " entry " << std::hex << entry);
                    CHECK(format->is_present(entry));
                    CHECK(format->is_leaf(entry, level));
                    CHECK(format->leaf_address(entry, level) == physical);
                    CHECK(format->attributes(entry, level) == wanted);
                }
            }
        }
        const u64 entry = format->table(HostPhysical(0xF'FFFF'FFFF'F000));
        CHECK(format->is_present(entry));
        for (unsigned level = 2; level <= 4; ++level) CHECK_FALSE(format->is_leaf(entry, level));
        CHECK(format->table_address(entry) == HostPhysical(0xF'FFFF'FFFF'F000));
    }
}

TEST_CASE("what a format cannot express is refused") {
    for (const PagingFormat* format : {&host_paging, &ept_paging, &npt_paging}) {
        CHECK_FALSE(format->supports({}));
        CHECK_FALSE(format->supports({.permissions = {.write = true}}));
        CHECK_FALSE(format->supports({.permissions = {.write = true, .execute = true}}));
    }
    CHECK(ept_paging.supports({.permissions = {.execute = true}}));
    CHECK_FALSE(host_paging.supports({.permissions = {.execute = true}}));
    CHECK_FALSE(npt_paging.supports({.permissions = {.execute = true}}));
    CHECK(host_paging.supports({.permissions = read_only, .global = true}));
    CHECK_FALSE(npt_paging.supports({.permissions = read_only, .global = true}));
    CHECK_FALSE(host_paging.supports({.permissions = read_only, .ignore_pat = true}));
    CHECK_FALSE(host_paging.supports({.permissions = read_write, .shadow_stack = true}));
    CHECK_FALSE(host_paging.supports({.permissions = read_execute, .shadow_stack = true}));
    CHECK_FALSE(npt_paging.supports({.permissions = read_only, .shadow_stack = true}));
}

TEST_CASE("the host's PAT keeps the meaning that the first four entries have after reset") {
    CHECK((host_pat & 0xFFFF'FFFF) == 0x0007'0406);
    for (unsigned i = 0; i < 8; ++i) {
        const u64 type = extract(host_pat, 8 * i + 7, 8 * i);
        CHECK((type < 2 || (type >= 4 && type < 8)));  // others are reserved: #GP on WRMSR
    }
}
