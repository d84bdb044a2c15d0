// Where things stand in the hypervisor's virtual address space.
//
//   FFFF8000'00000000  arena window   a VM's own physical memory p at arena_window + p, in that VM's
//   compartment only FFFFFE80'00000000  device window  device registers at device_window + p, in every
//   address space FFFFFFFF'80000000  image window   the kernel image and its fixed memory, at image_window +
//   p, in every address space
//
// There is no map of all physical memory. Each window begins at a PML4 slot of its own, so that sharing the
// kernel's part of an address space is copying top-level entries.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

constexpr u64 arena_window = 0xFFFF'8000'0000'0000;
constexpr u64 device_window = 0xFFFF'FE80'0000'0000;
constexpr u64 image_window = 0xFFFF'FFFF'8000'0000;

// The physical address at which the loader puts the image.
constexpr HostPhysical image_load_address{2 * mib};

// What each window can hold, in bytes of physical address space.
constexpr u64 arena_window_size = device_window - arena_window;  // 126.5 TiB
constexpr u64 device_window_size = 512 * gib;                    // one PML4 slot
constexpr u64 image_window_size = 1 * gib;  // within reach of sign-extended 32-bit displacements

[[nodiscard]] constexpr unsigned top_slot(u64 virtual_address) {
    return static_cast<unsigned>((virtual_address >> 39) & 511);
}

[[nodiscard]] constexpr HostVirtual image_virtual(HostPhysical physical) {
    return HostVirtual(image_window + physical.raw());
}
[[nodiscard]] constexpr HostPhysical image_physical(HostVirtual address) {
    return HostPhysical(address.raw() - image_window);
}
[[nodiscard]] constexpr bool in_image_window(HostVirtual address) {
    return address.raw() >= image_window && address.raw() - image_window < image_window_size;
}

[[nodiscard]] constexpr HostVirtual arena_virtual(HostPhysical physical) {
    return HostVirtual(arena_window + physical.raw());
}
[[nodiscard]] constexpr HostPhysical arena_physical(HostVirtual address) {
    return HostPhysical(address.raw() - arena_window);
}
[[nodiscard]] constexpr bool in_arena_window(HostVirtual address) {
    return address.raw() >= arena_window && address.raw() - arena_window < arena_window_size;
}

// Valid for device addresses below device_window_size; others are out of the hypervisor's reach.
[[nodiscard]] constexpr HostVirtual device_virtual(HostPhysical physical) {
    return HostVirtual(device_window + physical.raw());
}

static_assert(top_slot(arena_window) == 256 && top_slot(device_window) == 509 &&
              top_slot(image_window) == 511);

}  // namespace bulkhead
