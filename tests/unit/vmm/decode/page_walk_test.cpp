// The guest's page walk in every paging mode, and every bit of the page-fault error code.
#include "vmm/decode/page_walk.hpp"

#include <catch2/catch.hpp>

#include "test_machine.hpp"

namespace bulkhead::test {
namespace {

using Status = WalkResult::Status;
namespace error = page_fault_error;

constexpr u64 P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, NX = bit(63);

// Tables at fixed places; `linear` has a different index in every level.
struct Tables {
    TestMachine machine{64 * kib};
    PagingState state{};
    static constexpr u64 top = 0x1000, second = 0x2000, third = 0x3000, fourth = 0x4000, fifth = 0x5000;

    static Tables long_mode() {
        Tables t;
        t.state = {.cr0 = cr0::pe | cr0::pg | cr0::wp,
                   .cr3 = top,
                   .cr4 = cr4::pae,
                   .efer = efer::lme | efer::lma | efer::nxe,
                   .physical_bits = 40};
        t.machine.poke<u64>(top + 8 * 1, second | P | W | U);
        t.machine.poke<u64>(second + 8 * 2, third | P | W | U);
        t.machine.poke<u64>(third + 8 * 3, fourth | P | W | U);
        t.machine.poke<u64>(fourth + 8 * 4, 0x9000 | P | W | U);
        return t;
    }
    // Indices 1, 2, 3, 4 and the offset 567h.
    static constexpr GuestVirtual linear{1ull << 39 | 2ull << 30 | 3ull << 21 | 4ull << 12 | 0x567};
    static constexpr u64 pml4e = top + 8 * 1, pdpte = second + 8 * 2, pde = third + 8 * 3,
                         pte = fourth + 8 * 4;

    WalkResult walk(PageAccess access = {}, GuestVirtual at = linear) {
        return walk_pages(machine, state, at, access);
    }
    void expect_fault(PageAccess access, u32 code) {
        const std::vector<u8> before = machine.ram;
        const WalkResult result = walk(access);
        REQUIRE(result.status == Status::fault);
        CHECK(result.error_code == code);
        CHECK(machine.ram == before);
        const Event event = result.event(linear);
        CHECK(event.vector == exception::page_fault);
        CHECK(event.fault_address == linear.raw());
        CHECK(event.error_code == code);
    }
    void expect_ok(PageAccess access, u64 address) {
        const WalkResult result = walk(access);
        REQUIRE(result.status == Status::ok);
        CHECK(result.address == GuestPhysical(address));
    }
};

constexpr PageAccess read{}, write{.write = true}, fetch{.fetch = true}, user_read{.user = true},
    user_write{.write = true, .user = true}, user_fetch{.user = true, .fetch = true};

}  // namespace

TEST_CASE("with paging off a linear address is a physical one") {
    TestMachine machine;
    const WalkResult result = walk_pages(machine, {}, GuestVirtual(0x1234567), write);
    CHECK(result.status == Status::ok);
    CHECK(result.address == GuestPhysical(0x1234567));
}

TEST_CASE("4-level paging translates and sets accessed and dirty flags") {
    Tables t = Tables::long_mode();
    t.expect_ok(read, 0x9567);
    CHECK(t.machine.peek<u64>(Tables::pml4e) == (Tables::second | P | W | U | A));
    CHECK(t.machine.peek<u64>(Tables::pte) == (0x9000 | P | W | U | A));
    const unsigned exchanges = t.machine.exchanges;
    t.expect_ok(read, 0x9567);
    CHECK(t.machine.exchanges == exchanges);  // nothing left to set
    t.expect_ok(write, 0x9567);
    CHECK(t.machine.peek<u64>(Tables::pte) == (0x9000 | P | W | U | A | D));
    CHECK(t.machine.peek<u64>(Tables::pde) == (Tables::fourth | P | W | U | A));
}

TEST_CASE("large pages of 2 MiB and 1 GiB translate, with their PAT bit ignored and reserved bits checked") {
    Tables t = Tables::long_mode();
    t.machine.poke<u64>(Tables::pde, 0x4020'0000 | P | W | PS | bit(12));
    t.expect_ok(write, 0x4020'4567);
    CHECK(t.machine.peek<u64>(Tables::pde) == (0x4020'0000 | P | W | PS | bit(12) | A | D));
    t.machine.poke<u64>(Tables::pde, 0x4020'0000 | P | W | PS | bit(13));
    t.expect_fault(write, error::present | error::reserved | error::write);

    t.machine.poke<u64>(Tables::pdpte, 0x8000'0000 | P | W | PS);
    t.expect_ok(read, 0x8000'0000 + (Tables::linear.raw() & (gib - 1)));
    t.machine.poke<u64>(Tables::pdpte, 0x8000'0000 | P | W | PS | bit(29));
    t.expect_fault(read, error::present | error::reserved);
    t.machine.poke<u64>(Tables::pdpte, 0x8000'0000 | P | W | PS);
    t.state.gigabyte_pages = false;
    t.expect_fault(read, error::present | error::reserved);
    t.state.gigabyte_pages = true;
    t.machine.poke<u64>(Tables::pml4e, Tables::second | P | PS);
    t.expect_fault(read, error::present | error::reserved);
}

TEST_CASE("5-level paging adds a level on top") {
    Tables t = Tables::long_mode();
    t.state.cr4 |= cr4::la57;
    t.state.cr3 = Tables::fifth;
    t.machine.poke<u64>(Tables::fifth + 8 * 5, Tables::top | P | W | U);
    const GuestVirtual linear(5ull << 48 | Tables::linear.raw());
    const WalkResult result = t.walk(read, linear);
    REQUIRE(result.status == Status::ok);
    CHECK(result.address == GuestPhysical(0x9567));
    t.expect_fault(read, 0);  // index 0 of the top is empty
}

TEST_CASE("an entry that is not present faults at each level without P in the code") {
    for (const u64 entry : {Tables::pml4e, Tables::pdpte, Tables::pde, Tables::pte}) {
        Tables t = Tables::long_mode();
        t.machine.poke<u64>(entry, t.machine.peek<u64>(entry) & ~P);
        t.expect_fault(read, 0);
        t.expect_fault(write, error::write);
        t.expect_fault(user_read, error::user);
        t.expect_fault(user_write, error::user | error::write);
        t.expect_fault(fetch, error::fetch);
        t.expect_fault(user_fetch, error::fetch | error::user);
        t.state.efer &= ~efer::nxe;
        t.expect_fault(fetch, 0);  // neither NXE nor SMEP: fetches are not told apart
        t.state.cr4 |= cr4::smep;
        t.expect_fault(fetch, error::fetch);
    }
}

TEST_CASE("user, writable and no-execute are combined over all levels") {
    for (const u64 entry : {Tables::pml4e, Tables::pdpte, Tables::pde, Tables::pte}) {
        Tables t = Tables::long_mode();
        t.machine.poke<u64>(entry, t.machine.peek<u64>(entry) & ~U);
        t.expect_fault(user_read, error::present | error::user);
        t.expect_fault(user_fetch, error::present | error::user | error::fetch);
        t.expect_ok(read, 0x9567);

        t = Tables::long_mode();
        t.machine.poke<u64>(entry, t.machine.peek<u64>(entry) & ~W);
        t.expect_fault(user_write, error::present | error::user | error::write);
        t.expect_fault(write, error::present | error::write);
        t.expect_ok(read, 0x9567);
        t.state.cr0 &= ~cr0::wp;
        t.expect_fault(user_write, error::present | error::user | error::write);
        t.expect_ok(write, 0x9567);

        t = Tables::long_mode();
        t.machine.poke<u64>(entry, t.machine.peek<u64>(entry) | NX);
        t.expect_fault(fetch, error::present | error::fetch);
        t.expect_fault(user_fetch, error::present | error::user | error::fetch);
        t.expect_ok(user_write, 0x9567);
        t.state.efer &= ~efer::nxe;
        t.expect_fault(read, error::present | error::reserved);
    }
}

TEST_CASE("SMEP and SMAP keep the supervisor from user pages") {
    Tables t = Tables::long_mode();
    t.state.cr4 |= cr4::smep;
    t.expect_fault(fetch, error::present | error::fetch);
    t.expect_ok(user_fetch, 0x9567);
    t.expect_ok(read, 0x9567);
    t.state.cr4 = cr4::pae | cr4::smap;
    t.expect_fault(read, error::present);
    t.expect_fault(write, error::present | error::write);
    t.expect_ok(fetch, 0x9567);
    t.expect_ok(user_read, 0x9567);
    t.state.ac = true;
    t.expect_ok(write, 0x9567);
    t.expect_fault({.user = true, .implicit_supervisor = true}, error::present);
    t.machine.poke<u64>(Tables::pte, 0x9000 | P | W);
    t.expect_ok({.user = true, .implicit_supervisor = true}, 0x9567);
}

TEST_CASE("address bits above MAXPHYADDR are reserved at every level") {
    for (const u64 entry : {Tables::pml4e, Tables::pdpte, Tables::pde, Tables::pte}) {
        for (const unsigned number : {40u, 51u}) {
            Tables t = Tables::long_mode();
            t.machine.poke<u64>(entry, t.machine.peek<u64>(entry) | bit(number));
            t.expect_fault(user_write, error::present | error::reserved | error::user | error::write);
        }
        Tables t = Tables::long_mode();
        t.machine.poke<u64>(entry, t.machine.peek<u64>(entry) | bit(52) | bit(62));  // the guest's own bits
        t.expect_ok(read, 0x9567);
    }
}

TEST_CASE("tables outside RAM read as all ones and fault on their reserved bits") {
    Tables t = Tables::long_mode();
    t.machine.poke<u64>(Tables::pde, 0x80'0000'0000 - 0x1000 + (P | W | U));
    t.expect_fault(read, error::present | error::reserved);
}

TEST_CASE("PAE paging reads its pointers from memory or takes the processor's") {
    Tables t;
    t.state = {
        .cr0 = cr0::pe | cr0::pg, .cr3 = 0x1020, .cr4 = cr4::pae, .efer = efer::nxe, .physical_bits = 36};
    const GuestVirtual linear(2ull << 30 | 3ull << 21 | 4ull << 12 | 0x567);
    t.machine.poke<u64>(0x1020 + 8 * 2, Tables::third | P);
    t.machine.poke<u64>(Tables::pde, Tables::fourth | P | W | U);
    t.machine.poke<u64>(Tables::pte, 0x8'0000'9000 | P | W | U | NX);
    WalkResult result = t.walk(user_write, linear);
    REQUIRE(result.status == Status::ok);
    CHECK(result.address == GuestPhysical(0x8'0000'9567));
    CHECK(t.machine.peek<u64>(0x1020 + 8 * 2) == (Tables::third | P));  // PDPTEs have no accessed flag
    CHECK(t.machine.peek<u64>(Tables::pde) == (Tables::fourth | P | W | U | A));
    result = t.walk(fetch, linear);
    CHECK(result.status == Status::fault);
    CHECK(result.error_code == (error::present | error::fetch));
    t.machine.poke<u64>(Tables::pte, 0x9000 | P | bit(52));  // reserved in PAE, unlike in long mode
    CHECK(t.walk(read, linear).error_code == (error::present | error::reserved));
    t.machine.poke<u64>(Tables::pde, 0x20'0000 | P | PS);
    CHECK(t.walk(read, linear).address == GuestPhysical(0x20'4567));
    t.machine.poke<u64>(0x1020 + 8 * 2, Tables::third | P | W);
    CHECK(t.walk(read, linear).error_code == (error::present | error::reserved));
    t.state.pdptes = {{0, 0, Tables::third | P, 0}};
    CHECK(t.walk(read, linear).address == GuestPhysical(0x20'4567));
    (*t.state.pdptes)[2] = 0;
    CHECK(t.walk(user_read, linear).error_code == error::user);
}

TEST_CASE("32-bit paging has 4 KiB pages, 4 MiB pages with PSE, and 40-bit addresses for those") {
    Tables t;
    t.state = {.cr0 = cr0::pe | cr0::pg | cr0::wp, .cr3 = 0x1000, .physical_bits = 36};
    const GuestVirtual linear(5ull << 22 | 6ull << 12 | 0x89A);
    t.machine.poke<u32>(0x1000 + 4 * 5, 0x2000 | P | W | U);
    t.machine.poke<u32>(0x2000 + 4 * 6, 0x7000 | P | W | U);
    CHECK(t.walk(user_write, linear).address == GuestPhysical(0x789A));
    CHECK(t.machine.peek<u32>(0x1000 + 4 * 5) == (0x2000 | P | W | U | A));
    CHECK(t.machine.peek<u32>(0x2000 + 4 * 6) == (0x7000 | P | W | U | A | D));
    CHECK(t.machine.peek<u32>(0x2000 + 4 * 7) == 0);
    t.machine.poke<u32>(0x2000 + 4 * 6, 0x7000 | P | U);
    CHECK(t.walk(write, linear).error_code == (error::present | error::write));
    CHECK(t.walk(fetch, linear).status == Status::ok);
    t.machine.poke<u32>(0x2000 + 4 * 6, 0x7000 | P | W);
    CHECK(t.walk(user_read, linear).error_code == (error::present | error::user));
    t.machine.poke<u32>(0x2000 + 4 * 6, 0x7000 | W);
    CHECK(t.walk(user_read, linear).error_code == error::user);

    const u32 large = 0x0140'0000 | P | W | U | PS;
    t.machine.poke<u32>(0x1000 + 4 * 5, large);
    // Without PSE the bit is ignored: a table, here outside RAM, whose all-ones no reserved bit spoils.
    CHECK(t.walk(read, linear).address == GuestPhysical(0xFFFF'F89A));
    t.state.cr4 = cr4::pse;
    CHECK(t.walk(write, linear).address == GuestPhysical(0x0140'689A));
    CHECK(t.machine.peek<u32>(0x1000 + 4 * 5) == (large | A | D));
    t.machine.poke<u32>(0x1000 + 4 * 5, large | 0xF << 13);
    CHECK(t.walk(read, linear).address == GuestPhysical(0xF'0140'689A));
    t.machine.poke<u32>(0x1000 + 4 * 5, large | bit<u32>(17));  // address bit 36: beyond MAXPHYADDR
    CHECK(t.walk(read, linear).error_code == (error::present | error::reserved));
    t.state.physical_bits = 52;
    CHECK(t.walk(read, linear).address == GuestPhysical(0x10'0140'689A));
    t.machine.poke<u32>(0x1000 + 4 * 5, large | bit<u32>(21));
    CHECK(t.walk(read, linear).error_code == (error::present | error::reserved));
}

TEST_CASE("an entry that another processor changes under the walk is not overwritten") {
    Tables t = Tables::long_mode();
    unsigned times = 0;
    t.machine.before_exchange = [&](u64 address) {
        // Just before the accessed flag is set, the page is moved elsewhere.
        if (address == Tables::pte && times++ == 0) t.machine.poke<u64>(Tables::pte, 0xA000 | P | W | U);
    };
    t.expect_ok(write, 0xA567);
    CHECK(t.machine.peek<u64>(Tables::pte) == (0xA000 | P | W | U | A | D));

    t = Tables::long_mode();
    t.machine.before_exchange = [&](u64 address) {
        if (address == Tables::pte) t.machine.poke<u64>(Tables::pte, 0);
    };
    CHECK(t.walk(write).status == Status::fault);

    t = Tables::long_mode();
    u64 page = 0;
    t.machine.before_exchange = [&](u64 address) {
        if (address == Tables::pte) t.machine.poke<u64>(Tables::pte, (page += 0x1000) | P | W | U);
    };
    CHECK(t.walk(write).status == Status::contended);  // and it ends
}

}  // namespace bulkhead::test
