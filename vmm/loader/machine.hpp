// What the loader is told: the images the operator gave a VM, and the machine the VM is.
#pragma once

#include <span>
#include <string_view>

#include "kernel/base/bytes.hpp"
#include "kernel/base/types.hpp"
#include "vmm/loader/boot_protocol.hpp"

namespace bulkhead {

// A file handed to a kernel beside itself.
struct GuestModule {
    std::string_view name{};
    Bytes bytes{};
    std::string_view cmdline{};
};

struct BootImages {
    Bytes kernel{};
    std::string_view cmdline{};
    Bytes initrd{};                          // empty: none
    std::span<const GuestModule> modules{};  // for Multiboot and PVH kernels; an initrd goes before them
    BootProtocol protocol = BootProtocol::automatic;
};

// A virtio-mmio device, which a guest finds by an ACPI node only.
struct VirtioMmioNode {
    u64 base = 0;  // below 4 GiB
    u32 length = 0;
    u8 gsi = 0;  // edge or level is the device's choice: it is described as level-triggered, active-high
};

struct MachineDescription {
    std::span<const u32> apic_ids{};  // one a vCPU, the boot processor's first; all different
    u32 cpu_signature = 0;            // CPUID leaf 1 EAX and EDX, for the MP table
    u32 cpu_features = 0;
    u8 io_apic_id = 0;  // what the I/O APIC's ID register reads after reset
    bool com1 = true;
    bool com2 = false;
    bool keyboard_controller = true;
    bool vga = true;
    std::span<const VirtioMmioNode> virtio_mmio{};
};

}  // namespace bulkhead
