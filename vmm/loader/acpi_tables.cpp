#include "vmm/loader/acpi_tables.hpp"

#include <array>

#include "vmm/loader/byte_writer.hpp"
#include "vmm/loader/dsdt.hpp"
#include "vmm/loader/ssdt.hpp"
#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

constexpr usize header_size = 36;
constexpr std::string_view oem_id = "BULKHD", oem_table_id = "BULKHEAD", creator_id = "BLKH";
constexpr usize checksum_offset = 9;
constexpr usize table_alignment = 16;

// Builds the tables one behind the other in the zone.
class ZoneWriter {
  public:
    ZoneWriter(GuestPhysical zone, MutableBytes buffer) : zone_(zone), out_(buffer) {}

    // Starts a table. Only one is open at a time.
    ByteWriter& begin(std::string_view signature, u8 revision) {
        out_.align(table_alignment);
        start_ = out_.position();
        out_.text(signature);
        out_.put<u32>(0);  // length, by end()
        out_.put(revision);
        out_.put<u8>(0);  // checksum, by end()
        out_.text(oem_id);
        out_.text(oem_table_id);
        out_.put<u32>(1);
        out_.text(creator_id);
        out_.put<u32>(1);
        return out_;
    }
    // Completes the open table and returns its address.
    GuestPhysical end() {
        out_.put_at(start_ + 4, static_cast<u32>(out_.position() - start_));
        const MutableBytes table = out_.written(start_);
        if (!table.empty()) table[checksum_offset] = checksum_for(table);
        return zone_ + start_;
    }
    // A table that is complete as it is.
    GuestPhysical copy(Bytes table) {
        out_.align(table_alignment);
        start_ = out_.position();
        out_.bytes(table);
        return zone_ + start_;
    }
    [[nodiscard]] usize start() const { return start_; }
    [[nodiscard]] bool ok() const { return out_.ok(); }

  private:
    GuestPhysical zone_;
    ByteWriter out_;
    usize start_ = 0;
};

// Generic address structure of an I/O port (ACPI 5.0, 5.2.3.1). access: 1 byte, 2 word, 3 doubleword.
void put_port(ByteWriter& out, usize offset, Port port, u8 bits, u8 access) {
    out.put_at<u8>(offset, 1);
    out.put_at(offset + 1, bits);
    out.put_at<u8>(offset + 2, 0);
    out.put_at(offset + 3, access);
    out.put_at<u64>(offset + 4, port.raw());
}

// Fixed ACPI description table, ACPI 5.0, table 5-34. Offsets are the specification's.
GuestPhysical put_fadt(ZoneWriter& zone, GuestPhysical facs, GuestPhysical dsdt,
                       const MachineDescription& machine) {
    constexpr u8 revision = 5;
    constexpr usize length = 268;
    // Flags: WBINVD works; C1 on all processors; no sleep button; no RTC wake in fixed hardware; 32-bit PM
    // timer; a reset register. The power button is fixed hardware (its flag is clear).
    constexpr u32 flags = bit<u32>(0) | bit<u32>(2) | bit<u32>(5) | bit<u32>(6) | bit<u32>(8) | bit<u32>(10);
    constexpr u16 legacy_devices = bit<u16>(0), has_8042 = bit<u16>(1), no_vga = bit<u16>(2);

    ByteWriter& out = zone.begin("FACP", revision);
    const usize base = zone.start();
    out.zeros(length - header_size);
    const auto set = [&]<class T>(usize offset, T value) { out.put_at(base + offset, value); };
    set(36, static_cast<u32>(facs.raw()));
    set(40, static_cast<u32>(dsdt.raw()));
    set(45, u8{1});  // preferred profile: desktop
    set(46, u16{platform::irq_sci});
    set(48, u32{platform::smi_command.raw()});
    set(52, platform::acpi_enable);
    set(53, platform::acpi_disable);
    set(56, u32{platform::pm1a_event.raw()});
    set(64, u32{platform::pm1a_control.raw()});
    set(76, u32{platform::pm_timer.raw()});
    set(88, platform::pm1_event_length);
    set(89, platform::pm1_control_length);
    set(91, platform::pm_timer_length);
    set(96, u16{0xFFF});  // C2 latency past 100 us: not supported
    set(98, u16{0xFFF});  // C3 latency past 1000 us: likewise
    set(108, platform::century_index);
    u16 boot_flags = legacy_devices;
    if (machine.keyboard_controller) boot_flags |= has_8042;
    if (!machine.vga) boot_flags |= no_vga;
    set(109, boot_flags);
    set(112, flags);
    put_port(out, base + 116, platform::reset_control, 8, 1);
    set(128, platform::reset_value);
    // FACS by its 32-bit field alone: where both are set, the specification has them exclude each other.
    set(140, dsdt.raw());
    put_port(out, base + 148, platform::pm1a_event, platform::pm1_event_length * 8, 2);
    put_port(out, base + 172, platform::pm1a_control, platform::pm1_control_length * 8, 2);
    put_port(out, base + 208, platform::pm_timer, platform::pm_timer_length * 8, 3);
    return zone.end();
}

// Multiple APIC description table, ACPI 5.0, 5.2.12.
GuestPhysical put_madt(ZoneWriter& zone, const MachineDescription& machine) {
    constexpr u8 revision = 3;
    constexpr u32 dual_pics = 1, enabled = 1;
    constexpr u32 first_x2apic = 0xFF;
    constexpr u16 conforms = 0, level_active_high = 0xD;

    ByteWriter& out = zone.begin("APIC", revision);
    out.put(static_cast<u32>(platform::local_apic));
    out.put(dual_pics);
    bool any_x2apic = false;
    for (usize i = 0; i < machine.apic_ids.size(); ++i) {
        const u32 id = machine.apic_ids[i];
        if (id < first_x2apic && i < first_x2apic) {
            out.put<u8>(0);  // local APIC
            out.put<u8>(8);
            out.put(static_cast<u8>(i));
            out.put(static_cast<u8>(id));
            out.put(enabled);
        } else {
            out.put<u8>(9);  // local x2APIC
            out.put<u8>(16);
            out.put<u16>(0);
            out.put(id);
            out.put(enabled);
            out.put(static_cast<u32>(i));
            any_x2apic = true;
        }
    }
    out.put<u8>(1);  // I/O APIC
    out.put<u8>(12);
    out.put(machine.io_apic_id);
    out.put<u8>(0);
    out.put(static_cast<u32>(platform::io_apic));
    out.put<u32>(0);  // its first GSI
    const auto put_override = [&out](u8 irq, u16 polarity_and_trigger) {
        out.put<u8>(2);
        out.put<u8>(10);
        out.put<u8>(0);  // ISA
        out.put(irq);
        out.put(u32{platform::gsi_of_isa(irq)});
        out.put(polarity_and_trigger);
    };
    put_override(platform::irq_pit, conforms);
    put_override(platform::irq_sci, level_active_high);
    out.put<u8>(4);  // local APIC NMI: LINT1 of all
    out.put<u8>(6);
    out.put<u8>(0xFF);
    out.put(conforms);
    out.put<u8>(1);
    if (any_x2apic) {
        out.put<u8>(10);  // local x2APIC NMI: likewise
        out.put<u8>(12);
        out.put(conforms);
        out.put<u32>(0xFFFFFFFF);
        out.put<u8>(1);
        out.zeros(3);
    }
    return zone.end();
}

void put_facs(MutableBytes page) {
    ByteWriter out(page);
    out.zeros(64);
    out.put_at(0, std::array{'F', 'A', 'C', 'S'});
    out.put_at<u32>(4, 64);
    out.put_at<u8>(32, 2);  // version
}

Result<> put_rsdp(GuestMemory& memory, GuestPhysical rsdt, GuestPhysical xsdt) {
    constexpr usize first_part = 20, size = 36;
    u8* const place = memory.at(GuestPhysical(platform::rsdp), size);
    if (place == nullptr) return fail("the VM has no RAM at {:#x} for the ACPI root pointer", platform::rsdp);
    ByteWriter out({place, size});
    out.text("RSD PTR ");
    out.put<u8>(0);
    out.text(oem_id);
    out.put<u8>(2);
    out.put(static_cast<u32>(rsdt.raw()));
    out.put(static_cast<u32>(size));
    out.put(xsdt.raw());
    out.zeros(4);
    place[8] = checksum_for({place, first_part});
    place[32] = checksum_for({place, size});
    return {};
}

}  // namespace

Result<> write_acpi_tables(GuestMemory& memory, GuestPhysical zone, const MachineDescription& machine) {
    u8* const place = memory.at(zone, platform::acpi_zone_size);
    if (place == nullptr || zone.raw() + platform::acpi_zone_size > platform::mmio_hole_end) {
        return fail("the VM has no RAM at {} for the ACPI tables", zone);
    }
    for (const VirtioMmioNode& node : machine.virtio_mmio) {
        if (!range_within(node.base, node.length, platform::mmio_hole_end)) {
            return fail("a virtio-mmio device at {:#x} is not below 4 GiB", node.base);
        }
    }
    constexpr usize tables_size = platform::acpi_zone_size - platform::acpi_nvs_size;
    std::memset(place, 0, platform::acpi_zone_size);
    put_facs({place + tables_size, platform::acpi_nvs_size});

    ZoneWriter writer(zone, {place, tables_size});
    const GuestPhysical dsdt = writer.copy(dsdt_aml());
    put_ssdt_terms(writer.begin("SSDT", 2), machine);
    const GuestPhysical ssdt = writer.end();
    const GuestPhysical tables[] = {put_fadt(writer, zone + tables_size, dsdt, machine),
                                    put_madt(writer, machine), ssdt};
    ByteWriter& rsdt_out = writer.begin("RSDT", 1);
    for (const GuestPhysical table : tables) rsdt_out.put(static_cast<u32>(table.raw()));
    const GuestPhysical rsdt = writer.end();
    ByteWriter& xsdt_out = writer.begin("XSDT", 1);
    for (const GuestPhysical table : tables) xsdt_out.put(table.raw());
    const GuestPhysical xsdt = writer.end();
    if (!writer.ok()) {
        return fail("{} processors and {} virtio-mmio devices are too many for the ACPI tables",
                    machine.apic_ids.size(), machine.virtio_mmio.size());
    }
    return put_rsdp(memory, rsdt, xsdt);
}

}  // namespace bulkhead
