#include "vmm/loader/mp_table.hpp"

#include "vmm/loader/byte_writer.hpp"
#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

constexpr usize floating_pointer_size = 16, header_size = 44;
constexpr u8 specification_revision = 4;
constexpr u8 pci_bus = 0, isa_bus = 1;
constexpr u8 local_apic_version = 0x14, io_apic_version = 0x20;
constexpr u8 all_local_apics = 0xFF;
constexpr u32 first_unlisted_apic_id = 0xFF;

enum class Interrupt : u8 { vectored = 0, nmi = 1, smi = 2, external = 3 };
// Polarity in bits 0-1, trigger mode in bits 2-3; 0: as the bus has it.
constexpr u16 conforms = 0, level_active_high = 0xD, level_active_low = 0xF;

void put_interrupt(ByteWriter& out, u8 entry_type, Interrupt kind, u16 flags, u8 bus, u8 irq, u8 apic,
                   u8 pin) {
    out.put(entry_type);
    out.put(kind);
    out.put(flags);
    out.put(bus);
    out.put(irq);
    out.put(apic);
    out.put(pin);
}

u16 put_processors(ByteWriter& out, const MachineDescription& machine) {
    u16 count = 0;
    for (usize i = 0; i < machine.apic_ids.size(); ++i) {
        if (machine.apic_ids[i] >= first_unlisted_apic_id) continue;
        out.put<u8>(0);
        out.put(static_cast<u8>(machine.apic_ids[i]));
        out.put(local_apic_version);
        out.put<u8>(i == 0 ? 3 : 1);  // enabled; the first is the boot processor
        out.put(machine.cpu_signature);
        out.put(machine.cpu_features);
        out.zeros(8);
        ++count;
    }
    return count;
}

u16 put_buses(ByteWriter& out) {
    out.put<u8>(1);
    out.put(pci_bus);
    out.text("PCI   ");
    out.put<u8>(1);
    out.put(isa_bus);
    out.text("ISA   ");
    return 2;
}

u16 put_interrupts(ByteWriter& out, u8 io_apic) {
    constexpr u8 io_entry = 3, local_entry = 4;
    u16 count = 0;
    for (u8 irq = 0; irq < 16; ++irq) {
        if (irq == platform::irq_cascade) continue;
        const u16 flags = irq == platform::irq_sci ? level_active_high : conforms;
        put_interrupt(out, io_entry, Interrupt::vectored, flags, isa_bus, irq, io_apic,
                      platform::gsi_of_isa(irq));
        ++count;
    }
    for (u8 device = 1; device < 32; ++device) {
        for (u8 pin = 1; pin <= 4; ++pin) {
            const auto source = static_cast<u8>(device << 2 | (pin - 1));
            put_interrupt(out, io_entry, Interrupt::vectored, level_active_low, pci_bus, source, io_apic,
                          platform::gsi_of_pci_line(platform::pci_line(device, pin)));
            ++count;
        }
    }
    put_interrupt(out, local_entry, Interrupt::external, conforms, isa_bus, 0, all_local_apics, 0);
    put_interrupt(out, local_entry, Interrupt::nmi, conforms, isa_bus, 0, all_local_apics, 1);
    return static_cast<u16>(count + 2);
}

}  // namespace

Result<> write_mp_table(GuestMemory& memory, const MachineDescription& machine) {
    constexpr u64 room = platform::mp_table_limit - platform::mp_table;
    u8* const place = memory.at(GuestPhysical(platform::mp_table), room);
    if (place == nullptr) return fail("the VM has no RAM at {:#x} for the MP table", platform::mp_table);

    ByteWriter out({place, room});
    out.zeros(floating_pointer_size + header_size);
    u16 entries = put_processors(out, machine);
    entries = static_cast<u16>(entries + put_buses(out));
    out.put<u8>(2);
    out.put(machine.io_apic_id);
    out.put(io_apic_version);
    out.put<u8>(1);
    out.put(static_cast<u32>(platform::io_apic));
    ++entries;
    entries = static_cast<u16>(entries + put_interrupts(out, machine.io_apic_id));
    if (!out.ok()) return fail("{} processors are too many for the MP table", machine.apic_ids.size());

    const MutableBytes table = out.written(floating_pointer_size);
    ByteWriter header(table);
    header.text("PCMP");
    header.put(static_cast<u16>(table.size()));
    header.put(specification_revision);
    header.put<u8>(0);            // checksum, below
    header.text("BULKHEAD");      // OEM ID, 8 bytes
    header.text("VIRTUAL PC  ");  // product ID, 12 bytes
    header.zeros(6);              // no OEM table
    header.put(entries);
    header.put(static_cast<u32>(platform::local_apic));
    table[7] = checksum_for(table);

    ByteWriter pointer({place, floating_pointer_size});
    pointer.text("_MP_");
    pointer.put(static_cast<u32>(platform::mp_table + floating_pointer_size));
    pointer.put<u8>(1);  // length in units of 16 bytes
    pointer.put(specification_revision);
    place[10] = checksum_for({place, floating_pointer_size});
    return {};
}

}  // namespace bulkhead
