#include "kernel/bootinfo/acpi.hpp"

#include "kernel/bootinfo/boot_errors.hpp"

namespace bulkhead {
namespace {

constexpr u64 table_header_size = 36;
constexpr u32 most_tables = 128;

constexpr u32 signature(const char (&text)[5]) {
    u32 value = 0;
    for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<u8>(text[i]);
    return value;
}

FixedString<4> name_of_signature(u32 value) {
    FixedString<4> text;
    for (int i = 0; i < 4; ++i) {
        const char c = static_cast<char>(value >> (8 * i));
        const char shown = c > ' ' && c <= '~' ? c : '?';
        text.append({&shown, 1});
    }
    return text;
}

[[nodiscard]] bool sums_to_zero(Bytes bytes) {
    u8 sum = 0;
    for (const u8 byte : bytes) sum = static_cast<u8>(sum + byte);
    return sum == 0;
}

// The bytes of a root pointer, with its checksums verified; empty if it is none. ACPI 6.5, 5.2.5.3.
Bytes valid_rsdp(Bytes bytes) {
    constexpr char text[] = "RSD PTR ";
    if (bytes.size() < 20 || std::memcmp(bytes.data(), text, 8) != 0 || !sums_to_zero(bytes.first(20)))
        return {};
    if (bytes[15] < 2) return bytes.first(20);
    const u32 length = read_at<u32>(bytes, 20).value_or(0);
    if (length < 36 || bytes.size() < length || !sums_to_zero(bytes.first(length))) return bytes.first(20);
    return bytes.first(36);
}

struct Rsdp {
    u8 bytes[36] = {};
    usize size = 0;

    void assign(Bytes from) {
        size = from.size() < sizeof bytes ? from.size() : sizeof bytes;
        std::memcpy(bytes, from.data(), size);
    }
};

// On a 16-byte boundary of [start, start + length).
bool scan_for_rsdp(PhysicalReader& reader, u64 start, u64 length, Rsdp& found) {
    const auto bytes = reader.read(HostPhysical(start), length);
    if (!bytes) return false;
    for (u64 at = 0; at < length; at += 16) {
        const Bytes rsdp = valid_rsdp(bytes->subspan(at));
        if (rsdp.empty()) continue;
        found.assign(rsdp);
        return true;
    }
    return false;
}

bool find_rsdp(PhysicalReader& reader, Bytes from_loader, Rsdp& found) {
    if (const Bytes rsdp = valid_rsdp(from_loader); !rsdp.empty()) {
        found.assign(rsdp);
        return true;
    }
    // The first KiB of the extended BIOS data area, whose segment is at 40Eh, then the BIOS's read-only
    // memory.
    if (const auto bytes = reader.read(HostPhysical(0x40E), 2)) {
        const u64 ebda = u64{read_at<u16>(*bytes, 0).value_or(0)} << 4;
        const u64 left = ebda >= 0x400 && ebda < 0xA0000 ? 0xA0000 - ebda : 0;
        if (left != 0 && scan_for_rsdp(reader, ebda, left < kib ? left : kib, found)) return true;
    }
    return scan_for_rsdp(reader, 0xE0000, 0x20000, found);
}

// Not inlined, as others here, for the sake of the stack: errors are large.
//
// A table as a whole, its length and checksum verified. `wanted`: 0 for any signature.
[[gnu::noinline]] Result<Bytes> read_table(PhysicalReader& reader, HostPhysical address, u32 wanted,
                                           u64 least) {
    const auto bad = [&](u32 name, std::string_view why) {
        return fail(boot_error::bad_table, name_of_signature(name).view(), address, why);
    };
    const auto header = reader.read(address, table_header_size);
    if (!header || address.raw() == 0) return bad(wanted, "it cannot be read");
    const u32 name = read_at<u32>(*header, 0).value_or(0);
    const u32 length = read_at<u32>(*header, 4).value_or(0);
    if (wanted != 0 && name != wanted) return bad(wanted, "its signature is wrong");
    if (length < least || length < table_header_size || length > PhysicalReader::max_length) {
        return bad(name, "its length is wrong");
    }
    const auto bytes = reader.read(address, length);
    if (!bytes) return bad(name, "it cannot be read");
    if (!sums_to_zero(*bytes)) return bad(name, "its checksum is wrong");
    return *bytes;
}

void add_processor(AcpiInfo& info, u32 apic_id, u32 uid, u32 flags) {
    if ((flags & 1) == 0) return;  // not enabled; online-capable ones are hot-plug sockets
    for (const AcpiProcessor& processor : info.processors) {
        if (processor.apic_id == apic_id) return;  // listed as APIC and as x2APIC
    }
    if (!info.processors.push_back({.apic_id = apic_id, .uid = uid})) ++info.processors_left_out;
}

void add_local_nmi(AcpiInfo& info, u32 uid, u8 lint) {
    if (lint <= 1 && !info.local_nmis.push_back({.uid = uid, .lint = lint})) {
        info.note("too many local NMI entries in the MADT; the rest are ignored");
    }
}

// ACPI 6.5, 5.2.12.
Result<> parse_madt(Bytes table, HostPhysical address, AcpiInfo& info) {
    info.local_apic = HostPhysical(read_at<u32>(table, 36).value_or(0));
    info.has_legacy_pic = (read_at<u32>(table, 40).value_or(0) & 1) != 0;
    for (u64 at = 44; at < table.size();) {
        const auto type = read_at<u8>(table, at), length = read_at<u8>(table, at + 1);
        const auto entry = length ? slice(table, at, *length) : std::nullopt;
        if (!type || !entry || *length < 2) {
            return fail(boot_error::bad_table, "APIC", address, "an entry's length is wrong");
        }
        const auto byte = [&](u64 offset) { return read_at<u8>(*entry, offset).value_or(0); };
        const auto half = [&](u64 offset) { return read_at<u16>(*entry, offset).value_or(0); };
        const auto word = [&](u64 offset) { return read_at<u32>(*entry, offset).value_or(0); };
        // Entries that are shorter than their type has it are passed over.
        if (*type == 0 && *length >= 8 && byte(3) != 0xFF) {
            add_processor(info, byte(3), byte(2), word(4));
        } else if (*type == 9 && *length >= 16 && word(4) != 0xFFFFFFFF) {
            add_processor(info, word(4), word(12), word(8));
        } else if (*type == 1 && *length >= 12) {
            if (!info.io_apics.push_back(
                    {.id = byte(2), .address = HostPhysical(word(4)), .gsi_base = word(8)})) {
                info.note("too many I/O APICs in the MADT; the rest are ignored");
            }
        } else if (*type == 2 && *length >= 10 && byte(3) < 16) {
            const u16 flags = half(8);
            if (!info.overrides.push_back({.source = byte(3),
                                           .gsi = word(4),
                                           .polarity = static_cast<AcpiOverride::Polarity>(flags & 3),
                                           .trigger = static_cast<AcpiOverride::Trigger>(flags >> 2 & 3)})) {
                info.note("too many interrupt overrides in the MADT; the rest are ignored");
            }
        } else if (*type == 4 && *length >= 6) {
            add_local_nmi(info, byte(2) == 0xFF ? AcpiLocalNmi::all_processors : byte(2), byte(5));
        } else if (*type == 10 && *length >= 12) {
            add_local_nmi(info, word(4), byte(8));
        } else if (*type == 5 && *length >= 12) {
            info.local_apic = HostPhysical(read_at<u64>(*entry, 4).value_or(0));
        }
        at += *length;
    }
    return {};
}

// A generic address structure, ACPI 6.5, 5.2.3.2.
AcpiAddress generic_address(Bytes table, u64 offset) {
    const auto bytes = slice(table, offset, 12);
    if (!bytes || (*bytes)[0] > 2) return {};
    const u64 address = read_at<u64>(*bytes, 4).value_or(0);
    const auto space = static_cast<AcpiAddress::Space>((*bytes)[0]);
    if (address == 0 || (space == AcpiAddress::Space::io && address > 0xFFFF)) return {};
    return {.space = space, .address = address, .width = (*bytes)[1]};
}

// The 64-bit field where it is there, else the I/O port of the 32-bit one.
AcpiAddress register_block(Bytes table, u64 extended_offset, u64 port_offset, u8 width) {
    if (const AcpiAddress extended = generic_address(table, extended_offset); extended.present())
        return extended;
    const u32 port = read_at<u32>(table, port_offset).value_or(0);
    if (port == 0 || port > 0xFFFF) return {};
    return {.space = AcpiAddress::Space::io, .address = port, .width = width};
}

// What of the FADT needs the DSDT besides.
struct Fadt {
    HostPhysical dsdt{};
    AcpiAddress pm1a_control, pm1b_control;
};

// ACPI 6.5, 5.2.9. Later revisions only append fields, so what the table is too short for is absent.
Fadt parse_fadt(Bytes table, AcpiInfo& info) {
    Fadt result;
    const u32 flags = read_at<u32>(table, 112).value_or(0);
    const bool reduced_hardware = has_bit(flags, 20);
    info.smi_command_port = static_cast<u16>(read_at<u32>(table, 48).value_or(0));
    info.acpi_enable_value = read_at<u8>(table, 52).value_or(0);
    info.boot_flags = read_at<u16>(table, 109).value_or(0);
    if (!reduced_hardware) {
        if (read_at<u8>(table, 91).value_or(0) == 4) info.pm_timer = register_block(table, 208, 76, 32);
        info.pm_timer_32_bit = has_bit(flags, 8);
        result.pm1a_control = register_block(table, 172, 64, 16);
        result.pm1b_control = register_block(table, 184, 68, 16);
    }
    if (has_bit(flags, 10)) {
        info.reset_register = generic_address(table, 116);
        info.reset_value = read_at<u8>(table, 128).value_or(0);
    }
    const u64 extended = read_at<u64>(table, 140).value_or(0);
    result.dsdt = HostPhysical(extended != 0 ? extended : read_at<u32>(table, 40).value_or(0));
    return result;
}

void parse_mcfg(Bytes table, AcpiInfo& info) {
    for (u64 at = 44; range_within(at, 16, table.size()); at += 16) {
        const AcpiEcam ecam{.base = HostPhysical(*read_at<u64>(table, at)),
                            .segment = *read_at<u16>(table, at + 8),
                            .first_bus = *read_at<u8>(table, at + 10),
                            .last_bus = *read_at<u8>(table, at + 11)};
        if (ecam.base.raw() == 0 || ecam.last_bus < ecam.first_bus) continue;
        if (!info.ecam.push_back(ecam)) return;
    }
}

void note_error(AcpiInfo& info, const Error& error) {
    info.note(error.text);
}

// SLP_TYP from \_S5. Where there is no telling, power off is left unknown.
[[gnu::noinline]] void find_power_off(PhysicalReader& reader, const Fadt& fadt, AcpiInfo& info) {
    if (!fadt.pm1a_control.present() || fadt.dsdt.raw() == 0) return;
    const auto dsdt = read_table(reader, fadt.dsdt, signature("DSDT"), table_header_size);
    if (!dsdt) return note_error(info, dsdt.error());
    const auto types = find_s5(dsdt->subspan(table_header_size));
    if (!types) return info.note("the DSDT has no plain \\_S5; power off is not available");
    info.power_off = AcpiPowerOff{.pm1a_control = fadt.pm1a_control,
                                  .pm1b_control = fadt.pm1b_control,
                                  .sleep_type_a = types->a,
                                  .sleep_type_b = types->b};
}

[[gnu::noinline]] Result<> parse_one(PhysicalReader& reader, HostPhysical address, AcpiInfo& info,
                                     bool& madt_seen) {
    const auto header = reader.read(address, table_header_size);
    const u32 name = header && address.raw() != 0 ? read_at<u32>(*header, 0).value_or(0) : 0;
    switch (name) {
        case signature("APIC"): {
            if (madt_seen) return {};
            auto table = read_table(reader, address, name, 44);
            if (!table) return std::unexpected(table.error());
            madt_seen = true;
            return parse_madt(*table, address, info);
        }
        case signature("FACP"): {
            const auto table = read_table(reader, address, name, 116);
            if (!table) return note_error(info, table.error()), Result<>{};
            find_power_off(reader, parse_fadt(*table, info), info);
            return {};
        }
        case signature("MCFG"): {
            const auto table = read_table(reader, address, name, 44);
            if (!table) return note_error(info, table.error()), Result<>{};
            parse_mcfg(*table, info);
            return {};
        }
        case signature("HPET"): {
            const auto table = read_table(reader, address, name, 56);
            if (!table) return note_error(info, table.error()), Result<>{};
            const AcpiAddress base = generic_address(*table, 40);
            if (base.present() && base.space == AcpiAddress::Space::memory)
                info.hpet = HostPhysical(base.address);
            return {};
        }
        case signature("DMAR"):
        case signature("IVRS"): {
            const auto table = read_table(reader, address, name, 48);
            if (!table) return note_error(info, table.error()), Result<>{};
            (name == signature("DMAR") ? info.dmar : info.ivrs) = address;
            return {};
        }
        default: return {};
    }
}

// The addresses that the root table lists: 32 bits wide in an RSDT, 64 in an XSDT.
struct RootTable {
    HostPhysical address{};
    u32 signature = 0;
    u64 entry_size = 0;
    u32 count = 0;
};

[[gnu::noinline]] Result<RootTable> find_root(PhysicalReader& reader, Bytes loader_rsdp) {
    Rsdp rsdp;
    if (!find_rsdp(reader, loader_rsdp, rsdp)) return fail(boot_error::no_rsdp);
    const Bytes bytes(rsdp.bytes, rsdp.size);
    RootTable root{.address = HostPhysical(read_at<u64>(bytes, 24).value_or(0)),
                   .signature = signature("XSDT"),
                   .entry_size = 8};
    Result<Bytes> table = fail(boot_error::no_rsdp);
    if (root.address.raw() != 0) table = read_table(reader, root.address, root.signature, table_header_size);
    if (!table) {
        root = {.address = HostPhysical(read_at<u32>(bytes, 16).value_or(0)),
                .signature = signature("RSDT"),
                .entry_size = 4};
        table = read_table(reader, root.address, root.signature, table_header_size);
    }
    if (!table) return std::unexpected(table.error());
    const u64 count = (table->size() - table_header_size) / root.entry_size;
    root.count = static_cast<u32>(count < most_tables ? count : most_tables);
    return root;
}

void forget(AcpiInfo& info) {
    info.processors.clear();
    info.processors_left_out = 0;
    info.local_apic = HostPhysical(0xFEE00000);
    info.has_legacy_pic = true;
    info.io_apics.clear();
    info.overrides.clear();
    info.local_nmis.clear();
    info.pm_timer = info.reset_register = {};
    info.pm_timer_32_bit = false;
    info.reset_value = 0;
    info.power_off.reset();
    info.smi_command_port = 0;
    info.acpi_enable_value = 0;
    info.boot_flags = 0;
    info.hpet.reset();
    info.ecam.clear();
    info.dmar.reset();
    info.ivrs.reset();
}

Result<> read_tables(PhysicalReader& reader, Bytes loader_rsdp, AcpiInfo& info) {
    const auto root = find_root(reader, loader_rsdp);
    if (!root) return std::unexpected(root.error());
    bool madt_seen = false;
    for (u32 i = 0; i < root->count; ++i) {
        const auto bytes =
            reader.read(root->address + table_header_size + i * root->entry_size, root->entry_size);
        if (!bytes) break;
        const u64 address = root->entry_size == 8 ? read_at<u64>(*bytes, 0).value_or(0)
                                                  : u64{read_at<u32>(*bytes, 0).value_or(0)};
        if (auto parsed = parse_one(reader, HostPhysical(address), info, madt_seen); !parsed) return parsed;
    }
    if (info.processors.empty()) return fail(boot_error::no_processors);
    return {};
}

}  // namespace

void AcpiInfo::note(std::string_view text) {
    (void)notes.push_back(text);  // a ninth defect adds nothing to the picture
}

Result<> read_acpi(PhysicalReader& reader, Bytes loader_rsdp, AcpiInfo& info) {
    forget(info);
    info.notes.clear();
    auto result = read_tables(reader, loader_rsdp, info);
    if (!result) forget(info);
    return result;
}

// ACPI 6.5, 20.2.5.1 and 20.2.5.4: DefName is NameOp NameString DataRefObject, DefPackage is PackageOp
// PkgLength NumElements elements; 20.2.3: integers.
std::optional<SleepTypes> find_s5(Bytes aml) {
    constexpr u8 name_op = 0x08, root_char = 0x5C, package_op = 0x12, zero_op = 0, one_op = 1,
                 byte_prefix = 0x0A, word_prefix = 0x0B, dword_prefix = 0x0C;
    const auto at = [&](u64 offset) { return read_at<u8>(aml, offset); };
    for (u64 i = 1; range_within(i, 4, aml.size()); ++i) {
        if (std::memcmp(aml.data() + i, "_S5_", 4) != 0) continue;
        const bool named =
            *at(i - 1) == name_op || (i >= 2 && *at(i - 1) == root_char && *at(i - 2) == name_op);
        const auto lead = at(i + 5);
        if (!named || at(i + 4) != package_op || !lead) continue;
        const u64 end_of_length = i + 6 + (*lead >> 6);
        const auto elements = at(end_of_length);
        if (!elements || *elements < 2) continue;
        u64 next = end_of_length + 1;
        const auto integer = [&]() -> std::optional<u8> {
            const auto op = at(next++);
            if (!op) return std::nullopt;
            if (*op == zero_op || *op == one_op) return op;
            const u64 size = *op == byte_prefix ? 1 : *op == word_prefix ? 2 : *op == dword_prefix ? 4 : 0;
            const auto bytes = slice(aml, next, size);
            if (size == 0 || !bytes) return std::nullopt;
            next += size;
            return (*bytes)[0];
        };
        const auto a = integer();
        const auto b = a ? integer() : std::nullopt;
        if (!b || *a > 7 || *b > 7) continue;  // SLP_TYP has three bits
        return SleepTypes{.a = *a, .b = *b};
    }
    return std::nullopt;
}

}  // namespace bulkhead
