#include "vmm/loader/mp_table.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "tests/unit/vmm/loader/test_vm.hpp"

using namespace bulkhead;
using test::TestVm;

namespace {

// Reads the table the way a system does: from the pointer on, entry by entry.
struct ParsedMpTable {
    std::vector<u8> processors;  // APIC IDs
    std::map<u8, std::string> buses;
    unsigned io_apics = 0;
    struct Interrupt {
        u8 type, kind;
        u16 flags;
        u8 bus, irq, apic, pin;
    };
    std::vector<Interrupt> interrupts;
};

ParsedMpTable parse(const TestVm& vm) {
    ParsedMpTable result;
    const u64 pointer = platform::mp_table;
    REQUIRE(vm.bytes(pointer, 4) == std::vector<u8>{'_', 'M', 'P', '_'});
    CHECK(test::sum(vm.bytes(pointer, 16)) == 0);
    CHECK(vm.get<u8>(pointer + 8) == 1);
    CHECK(vm.get<u8>(pointer + 9) == 4);
    const u64 table = vm.get<u32>(pointer + 4);
    REQUIRE(vm.bytes(table, 4) == std::vector<u8>{'P', 'C', 'M', 'P'});
    const u16 length = vm.get<u16>(table + 4);
    CHECK(test::sum(vm.bytes(table, length)) == 0);
    CHECK(vm.get<u32>(table + 36) == 0xFEE00000);
    CHECK(table + length <= platform::mp_table_limit);
    u64 at = table + 44;
    for (u16 i = 0; i < vm.get<u16>(table + 34); ++i) {
        const u8 type = vm.get<u8>(at);
        switch (type) {
            case 0:
                CHECK((vm.get<u8>(at + 3) & 1) == 1);
                CHECK(((vm.get<u8>(at + 3) & 2) != 0) == result.processors.empty());
                CHECK(vm.get<u32>(at + 4) == 0x506E3);
                result.processors.push_back(vm.get<u8>(at + 1));
                at += 20;
                break;
            case 1: {
                const auto name = vm.bytes(at + 2, 6);
                result.buses[vm.get<u8>(at + 1)] = std::string(name.begin(), name.end());
                at += 8;
                break;
            }
            case 2:
                CHECK(vm.get<u8>(at + 1) == 8);
                CHECK(vm.get<u32>(at + 4) == 0xFEC00000);
                ++result.io_apics;
                at += 8;
                break;
            default:
                REQUIRE((type == 3 || type == 4));
                result.interrupts.push_back({type, vm.get<u8>(at + 1), vm.get<u16>(at + 2),
                                             vm.get<u8>(at + 4), vm.get<u8>(at + 5), vm.get<u8>(at + 6),
                                             vm.get<u8>(at + 7)});
                at += 8;
        }
    }
    CHECK(at == table + length);
    return result;
}

}  // namespace

TEST_CASE("the MP table lists processors, buses and every ISA interrupt once") {
    TestVm vm(16 * mib);
    const u32 ids[] = {0, 2, 4, 6};
    REQUIRE(write_mp_table(vm.memory, test::make_machine(ids)));
    const ParsedMpTable table = parse(vm);
    CHECK(table.processors == std::vector<u8>{0, 2, 4, 6});
    CHECK(table.buses.at(0) == "PCI   ");
    CHECK(table.buses.at(1) == "ISA   ");
    CHECK(table.io_apics == 1);
    std::map<u8, u8> isa_pins;
    std::set<u8> pci_sources;
    unsigned local = 0;
    for (const auto& it : table.interrupts) {
        if (it.type == 4) {
            ++local;
            CHECK(it.apic == 0xFF);
            CHECK(it.pin == (it.kind == 1 ? 1 : 0));
            continue;
        }
        CHECK(it.apic == 8);
        CHECK(it.pin < platform::gsi_count);
        REQUIRE(it.kind == 0);
        if (it.bus == 1) {
            CHECK(isa_pins.emplace(it.irq, it.pin).second);
            CHECK(it.flags == (it.irq == 9 ? 0xD : 0));
        } else {
            CHECK(pci_sources.insert(it.irq).second);
            CHECK(it.flags == 0xF);
            const unsigned device = it.irq >> 2, pin = it.irq & 3;
            CHECK(it.pin == 16 + (device + pin) % 4);
        }
    }
    CHECK(local == 2);
    CHECK(isa_pins.size() == 15);
    CHECK(isa_pins.at(0) == 2);
    CHECK(isa_pins.at(4) == 4);
    CHECK(isa_pins.count(2) == 0);
    CHECK(pci_sources.size() == 31 * 4);
}

TEST_CASE("processors that an 8-bit APIC ID cannot name are left out of the MP table") {
    TestVm vm(16 * mib);
    std::vector<u32> ids;
    for (u32 i = 0; i < 300; ++i) ids.push_back(i);
    REQUIRE(write_mp_table(vm.memory, test::make_machine(ids)));
    CHECK(parse(vm).processors.size() == 255);
}

TEST_CASE("an MP table without its memory is an error") {
    GuestMemory memory;
    const u32 ids[] = {0};
    const auto result = write_mp_table(memory, test::make_machine(ids));
    REQUIRE_FALSE(result);
    CHECK(test::contains(result.error().text, "MP table"));
}
