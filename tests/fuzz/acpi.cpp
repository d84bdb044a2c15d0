// ACPI tables: the input names tables and their bodies, which are put into memory with headers and checksums
// that are mostly right, behind a root pointer and a root table.
#include "kernel/bootinfo/acpi.hpp"

#include "tests/fuzz/physical.hpp"

using namespace bulkhead;

namespace {

using Table = std::vector<u8>;

void put32(Table& table, usize at, u32 value) {
    if (table.size() < at + 4) table.resize(at + 4);
    std::memcpy(table.data() + at, &value, 4);
}
void put64(Table& table, usize at, u64 value) {
    if (table.size() < at + 8) table.resize(at + 8);
    std::memcpy(table.data() + at, &value, 8);
}
void balance(Table& table, usize at, usize size) {
    u8 sum = 0;
    table[at] = 0;
    for (usize i = 0; i < size && i < table.size(); ++i) sum = static_cast<u8>(sum + table[i]);
    table[at] = static_cast<u8>(0U - sum);
}

constexpr u64 root_at = 0x10000, tables_at = 0x20000, table_stride = 0x1000;
constexpr const char* signatures[] = {"APIC", "FACP", "MCFG", "HPET", "DMAR", "IVRS", "DSDT", "SSDT"};

Table make_table(fuzz::Input& in, const char* signature) {
    Table table(36);
    std::memcpy(table.data(), signature, 4);
    const u8 quirk = in.byte();
    const Bytes body = in.take(in.value<u16>() % 0x400);
    table.insert(table.end(), body.begin(), body.end());
    put32(table, 4, quirk >= 0xF8 ? in.value<u32>() : static_cast<u32>(table.size()));
    if (std::memcmp(signature, "FACP", 4) == 0 && table.size() >= 148 && quirk < 0x80) {
        // The DSDT is the next table.
        put64(table, 140, 0);
        put32(table, 40, tables_at);
    }
    if (quirk < 0xF0) balance(table, 9, table.size());
    return table;
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    static AcpiInfo info;
    fuzz::Physical memory(in);
    const u8 shape = in.byte();
    const bool wide = (shape & 1) != 0;
    const unsigned count = 1 + (shape >> 4) % 8;

    Table root(36);
    std::memcpy(root.data(), wide ? "XSDT" : "RSDT", 4);
    for (unsigned i = 0; i < count; ++i) {
        const u64 address = tables_at + i * table_stride;
        const char* signature = i == 0 ? "DSDT" : signatures[in.byte() % std::size(signatures)];
        Table table = make_table(in, signature);
        if (i == 0 && table.size() > 36) {
            const auto types = find_s5(Bytes(table).subspan(36));
            if (types) MUST(types->a <= 0xFF);
        }
        memory.add(address, std::move(table));
        if (wide) put64(root, root.size(), address);
        if (!wide) put32(root, root.size(), static_cast<u32>(address));
    }
    put32(root, 4, static_cast<u32>(root.size()));
    balance(root, 9, root.size());
    memory.add(root_at, root);

    Table rsdp(36);
    std::memcpy(rsdp.data(), "RSD PTR ", 8);
    rsdp[15] = wide ? 2 : 0;
    put32(rsdp, 16, wide ? 0 : root_at);
    put32(rsdp, 20, 36);
    put64(rsdp, 24, wide ? root_at : 0);
    balance(rsdp, 8, 20);
    balance(rsdp, 32, 36);
    if ((shape & 2) != 0) rsdp[in.byte() % rsdp.size()] ^= in.byte();
    Bytes from_loader = rsdp;
    if ((shape & 0x8C) == 0x8C) {
        // The firmware's area is searched instead.
        Table area(0x20000);
        std::memcpy(area.data() + in.byte() * 16U, rsdp.data(), rsdp.size());
        memory.add(0xE0000, std::move(area));
        from_loader = {};
    }

    const auto result = read_acpi(memory, from_loader, info);
    for (const auto& note : info.notes) MUST(fuzz::is_plain(note));
    if (!result) {
        MUST(!result.error().text.empty() && fuzz::is_plain(result.error().text));
        MUST(info.processors.empty() && info.io_apics.empty() && !info.power_off);
        return;
    }
    for (usize i = 0; i < info.processors.size(); ++i) {
        for (usize j = 0; j < i; ++j) MUST(info.processors[i].apic_id != info.processors[j].apic_id);
    }
    for (const auto& override_ : info.overrides) MUST(override_.source < 16);
    for (const auto& nmi : info.local_nmis) MUST(nmi.lint <= 1);
    for (const auto& ecam : info.ecam) MUST(ecam.first_bus <= ecam.last_bus);
    for (const AcpiAddress& address : {info.pm_timer, info.reset_register}) {
        if (address.space == AcpiAddress::Space::io) MUST(address.address <= 0xFFFF);
        if (address.present()) MUST(address.address != 0);
    }
}
