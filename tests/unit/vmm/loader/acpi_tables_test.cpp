#include "vmm/loader/acpi_tables.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "tests/unit/vmm/loader/test_vm.hpp"
#include "vmm/loader/dsdt.hpp"
#include "vmm/loader/ssdt.hpp"

using namespace bulkhead;
using test::TestVm;

namespace {

constexpr u64 ram = 16 * mib;
constexpr u64 zone = ram - platform::acpi_zone_size;

struct Tables {
    std::map<std::string, u64> address;
    std::map<std::string, std::vector<u8>> content;
};

// Follows RSDP, XSDT and FADT as a system does, checking every length and checksum on the way.
Tables read_tables(const TestVm& vm) {
    Tables tables;
    const auto take = [&](u64 address) {
        REQUIRE(address >= zone);
        const auto raw_name = vm.bytes(address, 4);
        const std::string name(raw_name.begin(), raw_name.end());
        const u32 length = vm.get<u32>(address + 4);
        REQUIRE(address + length <= ram);
        const auto content = vm.bytes(address, length);
        if (name != "FACS") CHECK(test::sum(content) == 0);
        tables.address[name] = address;
        tables.content[name] = content;
        return name;
    };
    const auto rsdp = vm.bytes(platform::rsdp, 36);
    REQUIRE(std::memcmp(rsdp.data(), "RSD PTR ", 8) == 0);
    CHECK(rsdp[15] == 2);
    CHECK(test::sum(rsdp) == 0);
    CHECK(test::sum({rsdp.begin(), rsdp.begin() + 20}) == 0);
    const u64 rsdt = vm.get<u32>(platform::rsdp + 16), xsdt = vm.get<u64>(platform::rsdp + 24);
    REQUIRE(take(rsdt) == "RSDT");
    REQUIRE(take(xsdt) == "XSDT");
    const usize count = (tables.content["XSDT"].size() - 36) / 8;
    REQUIRE((tables.content["RSDT"].size() - 36) / 4 == count);
    for (usize i = 0; i < count; ++i) {
        const u64 table = vm.get<u64>(xsdt + 36 + 8 * i);
        CHECK(vm.get<u32>(rsdt + 36 + 4 * i) == table);
        take(table);
    }
    const u64 fadt = tables.address.at("FACP");
    CHECK(take(vm.get<u32>(fadt + 40)) == "DSDT");
    CHECK(vm.get<u64>(fadt + 140) == vm.get<u32>(fadt + 40));
    CHECK(take(vm.get<u32>(fadt + 36)) == "FACS");
    return tables;
}

struct MadtEntry {
    u8 type;
    std::vector<u8> data;
};

std::vector<MadtEntry> read_madt(const std::vector<u8>& madt) {
    std::vector<MadtEntry> entries;
    usize at = 44;
    while (at < madt.size()) {
        const u8 length = madt.at(at + 1);
        REQUIRE(length >= 2);
        REQUIRE(at + length <= madt.size());
        entries.push_back(
            {madt[at],
             {madt.begin() + static_cast<long>(at), madt.begin() + static_cast<long>(at) + length}});
        at += length;
    }
    CHECK(at == madt.size());
    return entries;
}

template <class T>
T field(const std::vector<u8>& table, usize offset) {
    return read_at<T>(table, offset).value();
}

// Disassembles the table with iasl and compiles the result again; neither may complain. Returns what iasl
// made of it.
std::string through_iasl(const std::string& name, const std::vector<u8>& table) {
    const auto folder =
        std::filesystem::temp_directory_path() / ("bulkhead-acpi-" + std::to_string(getpid()) + "-" + name);
    std::filesystem::create_directories(folder);
    const std::string base = (folder / name).string();
    std::ofstream(base + ".aml", std::ios::binary)
        .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
    const auto run = [&](const std::string& command) {
        const int status = std::system((command + " > " + base + ".log 2>&1").c_str());
        std::ifstream log(base + ".log");
        std::string text((std::istreambuf_iterator<char>(log)), {});
        INFO(command << "\n" << text);
        CHECK(status == 0);
        CHECK_FALSE(test::contains(text, "rror:"));
        CHECK_FALSE(test::contains(text, "Warning "));  // "0 Warnings" is fine
        CHECK_FALSE(test::contains(text, "ncorrect"));
        return text;
    };
    run("iasl -d " + base + ".aml");
    std::ifstream file(base + ".dsl");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    CHECK_FALSE(text.empty());
    const std::string log = run("iasl -we -p " + base + "-again " + base + ".dsl");
    if (name == "DSDT" || name == "SSDT") CHECK(test::contains(log, "0 Errors, 0 Warnings"));
    std::filesystem::remove_all(folder);
    return text;
}

bool have_iasl() {
    return std::system("iasl -v > /dev/null 2>&1") == 0;
}

}  // namespace

TEST_CASE("the ACPI tables hang together and every checksum is right") {
    TestVm vm(ram);
    const u32 ids[] = {0, 1, 2, 3};
    REQUIRE(write_acpi_tables(vm.memory, GuestPhysical(zone), test::make_machine(ids)));
    const Tables tables = read_tables(vm);
    std::set<std::string> names;
    for (const auto& [name, content] : tables.content) names.insert(name);
    CHECK(names == std::set<std::string>{"APIC", "DSDT", "FACP", "FACS", "RSDT", "SSDT", "XSDT"});
    CHECK(tables.address.at("FACS") == ram - platform::acpi_nvs_size);
    CHECK(tables.address.at("FACS") % 64 == 0);
    for (const auto& [name, address] : tables.address) {
        CHECK(address % 16 == 0);
        if (name != "FACS") CHECK(address + tables.content.at(name).size() <= ram - platform::acpi_nvs_size);
    }
}

TEST_CASE("the FADT describes the platform's fixed hardware") {
    TestVm vm(ram);
    const u32 ids[] = {0};
    REQUIRE(write_acpi_tables(vm.memory, GuestPhysical(zone), test::make_machine(ids)));
    const auto fadt = read_tables(vm).content.at("FACP");
    CHECK(fadt.size() == 268);
    CHECK(fadt[8] == 5);
    CHECK(field<u16>(fadt, 46) == 9);
    CHECK(field<u32>(fadt, 48) == 0xB2);
    CHECK(fadt[52] == 0xF1);
    CHECK(fadt[53] == 0xF0);
    CHECK(field<u32>(fadt, 56) == 0x600);
    CHECK(field<u32>(fadt, 64) == 0x604);
    CHECK(field<u32>(fadt, 76) == 0x608);
    CHECK(fadt[88] == 4);
    CHECK(fadt[89] == 2);
    CHECK(fadt[91] == 4);
    CHECK(fadt[108] == 0x32);
    CHECK(field<u16>(fadt, 109) == 3);
    const u32 flags = field<u32>(fadt, 112);
    CHECK((flags & 1U << 10) != 0);  // reset register
    CHECK((flags & 1U << 8) != 0);   // 32-bit timer
    CHECK((flags & 1U << 4) == 0);   // power button is fixed hardware
    CHECK((flags & 1U << 20) == 0);  // not hardware-reduced
    CHECK(fadt[116] == 1);
    CHECK(field<u64>(fadt, 120) == 0xCF9);
    CHECK(fadt[128] == 6);
    for (const auto& [offset, port, bits] :
         {std::tuple{148, 0x600, 32}, std::tuple{172, 0x604, 16}, std::tuple{208, 0x608, 32}}) {
        CHECK(fadt[static_cast<usize>(offset)] == 1);
        CHECK(fadt[static_cast<usize>(offset) + 1] == bits);
        CHECK(field<u64>(fadt, static_cast<usize>(offset) + 4) == static_cast<u64>(port));
    }
}

TEST_CASE("the FADT says so when keyboard controller or screen are absent") {
    TestVm vm(ram);
    const u32 ids[] = {0};
    MachineDescription machine = test::make_machine(ids);
    machine.keyboard_controller = false;
    machine.vga = false;
    REQUIRE(write_acpi_tables(vm.memory, GuestPhysical(zone), machine));
    CHECK(field<u16>(read_tables(vm).content.at("FACP"), 109) == 5);
}

TEST_CASE("the MADT lists processors, the I/O APIC and the two overrides") {
    TestVm vm(ram);
    const u32 ids[] = {0, 2, 4};
    REQUIRE(write_acpi_tables(vm.memory, GuestPhysical(zone), test::make_machine(ids)));
    const auto madt = read_tables(vm).content.at("APIC");
    CHECK(field<u32>(madt, 36) == 0xFEE00000);
    CHECK(field<u32>(madt, 40) == 1);
    const auto entries = read_madt(madt);
    REQUIRE(entries.size() == 3 + 1 + 2 + 1);
    for (u8 i = 0; i < 3; ++i)
        CHECK(entries[i].data == std::vector<u8>{0, 8, i, static_cast<u8>(2 * i), 1, 0, 0, 0});
    CHECK(entries[3].data == std::vector<u8>{1, 12, 8, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0});
    CHECK(entries[4].data == std::vector<u8>{2, 10, 0, 0, 2, 0, 0, 0, 0, 0});
    CHECK(entries[5].data == std::vector<u8>{2, 10, 0, 9, 9, 0, 0, 0, 0xD, 0});
    CHECK(entries[6].data == std::vector<u8>{4, 6, 0xFF, 0, 0, 1});
}

TEST_CASE("APIC IDs of 255 and more become x2APIC entries") {
    TestVm vm(ram);
    const u32 ids[] = {0, 254, 255, 256, 70000};
    REQUIRE(write_acpi_tables(vm.memory, GuestPhysical(zone), test::make_machine(ids)));
    const auto entries = read_madt(read_tables(vm).content.at("APIC"));
    CHECK(entries[1].type == 0);
    CHECK(entries[1].data[3] == 254);
    for (usize i = 2; i < 5; ++i) {
        REQUIRE(entries[i].type == 9);
        CHECK(field<u32>(entries[i].data, 4) == ids[i]);
        CHECK(field<u32>(entries[i].data, 8) == 1);
        CHECK(field<u32>(entries[i].data, 12) == i);
    }
    CHECK(entries.back().type == 10);
    CHECK(entries.back().data.size() == 12);
}

TEST_CASE("as many processors as fit are described, and more are refused") {
    TestVm vm(ram);
    std::vector<u32> ids;
    for (u32 i = 0; i < 512; ++i) ids.push_back(i);
    REQUIRE(write_acpi_tables(vm.memory, GuestPhysical(zone), test::make_machine(ids)));
    CHECK(read_madt(read_tables(vm).content.at("APIC")).size() == 512 + 1 + 2 + 1 + 1);
    for (u32 i = 512; i < 4096; ++i) ids.push_back(i);
    const auto refused = write_acpi_tables(vm.memory, GuestPhysical(zone), test::make_machine(ids));
    REQUIRE_FALSE(refused);
    CHECK(test::contains(refused.error().text, "4096 processors"));
}

TEST_CASE("the ACPI zone must be RAM below 4 GiB, and virtio-mmio too") {
    TestVm vm(ram);
    const u32 ids[] = {0};
    CHECK_FALSE(write_acpi_tables(vm.memory, GuestPhysical(ram - page_size), test::make_machine(ids)));
    CHECK_FALSE(write_acpi_tables(vm.memory, GuestPhysical(~u64{0}), test::make_machine(ids)));
    MachineDescription machine = test::make_machine(ids);
    const VirtioMmioNode nodes[] = {{.base = 5 * gib, .length = 0x200, .gsi = 20}};
    machine.virtio_mmio = nodes;
    CHECK_FALSE(write_acpi_tables(vm.memory, GuestPhysical(zone), machine));
}

TEST_CASE("iasl reads every table without complaint, and finds in them what was meant") {
    if (!have_iasl()) {
        WARN("skipped: iasl is not installed");
        return;
    }
    TestVm vm(ram);
    const u32 ids[] = {0, 1, 300};
    MachineDescription machine = test::make_machine(ids);
    machine.com2 = true;
    const VirtioMmioNode nodes[] = {{.base = 0xD0000000, .length = 0x200, .gsi = 20}};
    machine.virtio_mmio = nodes;
    REQUIRE(write_acpi_tables(vm.memory, GuestPhysical(zone), machine));
    const Tables tables = read_tables(vm);
    std::map<std::string, std::string> source;
    for (const auto& [name, content] : tables.content) source[name] = through_iasl(name, content);

    const std::string& ssdt = source.at("SSDT");
    CHECK(test::contains(ssdt, "Device (COM1)"));
    CHECK(test::contains(ssdt, "Device (COM2)"));
    CHECK(test::contains(ssdt, "EisaId (\"PNP0501\")"));
    CHECK(test::contains(ssdt, "0x03F8,             // Range Minimum"));
    CHECK(test::contains(ssdt, "0x02F8,             // Range Minimum"));
    CHECK(test::contains(ssdt, "EisaId (\"PNP0303\")"));
    CHECK(test::contains(ssdt, "\"LNRO0005\""));
    CHECK(test::contains(ssdt, "0xD0000000,         // Address Base"));
    CHECK(test::contains(ssdt, "Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive"));
    CHECK(test::contains(ssdt, "Device (C002)"));
    CHECK_FALSE(test::contains(ssdt, "Device (C003)"));
    CHECK(test::contains(ssdt, "\"ACPI0007\""));
}

TEST_CASE("the DSDT's literals are the platform's") {
    const Bytes aml = dsdt_aml();
    REQUIRE(aml.size() > 36);
    REQUIRE(read_at<u32>(aml, 4) == aml.size());
    const auto occurs = [&](const std::vector<u8>& bytes) {
        return std::search(aml.begin(), aml.end(), bytes.begin(), bytes.end()) != aml.end();
    };
    const auto io = [](u16 port, u8 length) {
        const u8 low = static_cast<u8>(port), high = static_cast<u8>(port >> 8);
        return std::vector<u8>{0x47, 1, low, high, low, high, 1, length};
    };
    // 64 ports, as the PCI function that has them claims.
    CHECK(occurs(io(platform::pm_base.raw(), 64)));
    CHECK(occurs(io(platform::smi_command.raw(), 2)));
    CHECK(occurs(io(platform::rtc_index.raw(), 2)));
    CHECK(occurs(io(platform::pit.raw(), 4)));
    CHECK(occurs(io(platform::port_b.raw(), 1)));
    CHECK(occurs(io(platform::pci_config_address.raw(), 8)));
    CHECK(occurs(io(platform::pic_master.raw(), 2)));
    CHECK(occurs(io(platform::elcr.raw(), 2)));
    // _S5_: a package of four, SLP_TYPa and SLP_TYPb in front.
    CHECK(occurs({'_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0A, platform::s5_sleep_type, 0x0A,
                  platform::s5_sleep_type, 0x00, 0x00}));
    // The memory window: minimum, maximum, translation, length.
    std::vector<u8> window;
    test::put<u32>(window, 0, static_cast<u32>(platform::pci_memory));
    test::put<u32>(window, 4, static_cast<u32>(platform::pci_memory_end - 1));
    test::put<u32>(window, 8, 0);
    test::put<u32>(window, 12, static_cast<u32>(platform::pci_memory_end - platform::pci_memory));
    CHECK(occurs(window));
}

TEST_CASE("the interpreter of ACPICA routes PCI interrupts as the platform wires them") {
    if (!have_iasl() || std::system("command -v acpiexec > /dev/null 2>&1") != 0) {
        WARN("skipped: iasl or acpiexec is not installed");
        return;
    }
    const auto file =
        std::filesystem::temp_directory_path() / ("bulkhead-dsdt-" + std::to_string(getpid()) + ".aml");
    const Bytes aml = dsdt_aml();
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(aml.data()), static_cast<std::streamsize>(aml.size()));
    for (const bool apic : {false, true}) {
        const std::string out = file.string() + ".txt";
        const std::string command = "acpiexec -b \"execute \\\\_PIC " + std::string(apic ? "1" : "0") +
                                    ";execute \\\\_SB.PCI0._PRT\" " + file.string() + " > " + out + " 2>&1";
        CHECK(std::system(command.c_str()) == 0);
        std::ifstream log(out);
        const std::string text((std::istreambuf_iterator<char>(log)), {});
        INFO(text);
        // The package's elements: address, pin, source (0), interrupt.
        std::vector<u64> numbers;
        const std::string mark = "[Integer] = ";
        for (usize at = text.find(mark, text.find("_PRT")); at != std::string::npos;
             at = text.find(mark, at + 1)) {
            numbers.push_back(std::stoull(text.substr(at + mark.size(), 16), nullptr, 16));
        }
        REQUIRE(numbers.size() == 128 * 4);
        for (usize i = 0; i < 128; ++i) {
            const u8 device = static_cast<u8>(i / 4), pin = static_cast<u8>(i % 4);
            CHECK(numbers[4 * i] == (u64{device} << 16 | 0xFFFF));
            CHECK(numbers[4 * i + 1] == pin);
            CHECK(numbers[4 * i + 2] == 0);
            const u8 line = platform::pci_line(device, static_cast<u8>(pin + 1));
            CHECK(numbers[4 * i + 3] ==
                  (apic ? platform::gsi_of_pci_line(line) : platform::isa_irq_of_pci_line(line)));
        }
        std::filesystem::remove(out);
    }
    std::filesystem::remove(file);
}
