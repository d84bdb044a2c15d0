#include "vmm/loader/boot_image.hpp"

#include "vmm/loader/acpi_tables.hpp"
#include "vmm/loader/bios_area.hpp"
#include "vmm/loader/bzimage.hpp"
#include "vmm/loader/mp_table.hpp"
#include "vmm/loader/multiboot_guest.hpp"
#include "vmm/loader/multiboot_header.hpp"
#include "vmm/loader/pvh.hpp"
#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

constexpr u64 smallest_firmware = 64 * kib;
constexpr u64 largest_firmware = platform::firmware_window_end - platform::firmware_window;

[[gnu::noinline]] Result<> start_firmware(Bytes rom, StartState& state) {
    if (rom.size() < smallest_firmware || rom.size() > largest_firmware || rom.size() % page_size != 0) {
        return fail("firmware ROM of {} bytes; it must have 64 KiB to 16 MiB, in whole pages", rom.size());
    }
    state = make_reset_start();
    const u64 alias = rom.size() < platform::bios_alias_size ? rom.size() : platform::bios_alias_size;
    state.firmware = FirmwareMapping{.address = GuestPhysical(platform::firmware_window_end - rom.size()),
                                     .length = rom.size(),
                                     .alias = GuestPhysical(platform::bios_area_end - alias),
                                     .alias_length = alias};
    return {};
}

[[gnu::noinline]] Result<> check_machine(const MachineDescription& machine) {
    if (machine.apic_ids.empty()) return fail("the VM has no processors; set vcpus to 1 or more");
    for (usize i = 0; i < machine.apic_ids.size(); ++i) {
        for (usize other = 0; other < i; ++other) {
            if (machine.apic_ids[i] == machine.apic_ids[other]) {
                return fail("processors {} and {} have the same APIC ID, {}", other, i, machine.apic_ids[i]);
            }
        }
    }
    return {};
}

// Tables before the kernel: Multiboot 2 hands out a copy of the ACPI root pointer.
[[gnu::noinline]] Result<> write_tables(GuestMemory& memory, const GuestMemoryMap& map,
                                        const MachineDescription& machine) {
    Result<> done = write_bios_area(memory, machine);
    if (done) done = write_mp_table(memory, machine);
    if (done) done = write_acpi_tables(memory, map.acpi_zone(), machine);
    return done;
}

[[gnu::noinline]] Result<> load_kernel(const LoadContext& context, BootProtocol protocol, StartState& state) {
    switch (protocol) {
        case BootProtocol::linux_boot: return load_linux(context, state);
        case BootProtocol::multiboot2: return load_multiboot2(context, state);
        case BootProtocol::multiboot1: return load_multiboot1(context, state);
        case BootProtocol::pvh: return load_pvh(context, state);
        case BootProtocol::automatic:
        case BootProtocol::firmware: break;
    }
    return fail("{} is not a way to load a kernel", name_of(protocol));
}

[[gnu::noinline]] Result<> load_with_map(GuestMemory& memory, const BootImages& images,
                                         const MachineDescription& machine, BootProtocol protocol,
                                         StartState& state) {
    const Result<GuestMemoryMap> map = GuestMemoryMap::build(memory);
    if (!map) return std::unexpected(map.error());
    Result<> done = write_tables(memory, *map, machine);
    if (done) done = load_kernel({memory, *map, images, machine}, protocol, state);
    return done;
}

[[gnu::noinline]] Result<BootProtocol> choose_protocol(const BootImages& images) {
    if (images.kernel.empty()) return fail("the kernel's file is empty; name a kernel");
    if (images.protocol != BootProtocol::automatic) return images.protocol;
    return recognise_image(images.kernel);
}

[[gnu::noinline]] Result<> load_into_state(GuestMemory& memory, const BootImages& images,
                                           const MachineDescription& machine, StartState& state) {
    const Result<BootProtocol> protocol = choose_protocol(images);
    if (!protocol) return std::unexpected(protocol.error());
    if (*protocol == BootProtocol::firmware) return start_firmware(images.kernel, state);
    const Result<> checked = check_machine(machine);
    return checked ? load_with_map(memory, images, machine, *protocol, state) : checked;
}

}  // namespace

Result<BootProtocol> recognise_image(Bytes kernel) {
    if (LinuxImage::recognise(kernel)) return BootProtocol::linux_boot;
    if (has_multiboot2_header(kernel)) return BootProtocol::multiboot2;
    if (has_multiboot1_header(kernel)) return BootProtocol::multiboot1;
    if (ElfImage::recognise(kernel)) {
        const Result<ElfImage> image = ElfImage::parse(kernel);
        if (!image) return std::unexpected(image.error());
        if (find_pvh_entry(*image)) return BootProtocol::pvh;
        return fail("an ELF file with neither Multiboot header nor PVH note; it cannot be booted directly");
    }
    if (read_at<u16>(kernel, 0) == u16{0x8B1F}) {
        return fail("a gzip file; let GRUB unpack it (module without --nounzip) or unpack it yourself");
    }
    return fail("not a bzImage, Multiboot or PVH kernel; if it is a firmware ROM, say so in the config");
}

Result<StartState> load_guest(GuestMemory& memory, const BootImages& images,
                              const MachineDescription& machine) {
    Result<StartState> state;
    if (Result<> done = load_into_state(memory, images, machine, *state); !done) {
        return std::unexpected(done.error());
    }
    return state;
}

}  // namespace bulkhead
