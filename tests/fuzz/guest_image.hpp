// A kernel image that is right but for some bytes, put into the RAM of a VM.
#pragma once

#include <vector>

#include "tests/fuzz/fuzz.hpp"
#include "tests/unit/vmm/loader/images.hpp"
#include "vmm/loader/boot_image.hpp"
#include "vmm/loader/layout.hpp"

namespace bulkhead::fuzz {

// `image` with up to 8 of its fields overwritten, cut off or grown; or bytes of the input altogether.
inline std::vector<u8> mutate(Input& in, std::vector<u8> image) {
    const u8 shape = in.byte();
    if (shape >= 0xF8) {
        const Bytes bytes = in.take(in.value<u16>());
        return {bytes.begin(), bytes.end()};
    }
    for (unsigned i = 0; i < shape % 8U; ++i) {
        const u16 at = in.value<u16>();
        const u64 value = in.number();
        const usize size = usize{1} << (at >> 14);
        const usize offset = (at & 0x3FFF) % (image.empty() ? 1 : image.size());
        if (offset + size <= image.size()) std::memcpy(image.data() + offset, &value, size);
    }
    if ((shape & 0x18) == 0x18) image.resize(in.value<u16>() % (image.size() + 16));
    return image;
}

// Loads what was made into a VM of 4 MiB, with whatever else an operator may name.
inline void load(Input& in, std::vector<u8> image, BootProtocol protocol) {
    static test::TestVm vm(4 * mib);
    static constexpr u32 apic_ids[] = {0, 1, 2};
    const test::ExactCopy kernel({image.data(), image.size()});
    const std::string_view cmdline = in.text(in.rarely(16) ? in.value<u16>() % 5000 : in.byte() % 64);
    const Bytes initrd = in.take(in.rarely(64) ? in.value<u16>() : 0);
    GuestModule modules[3];
    for (GuestModule& module : modules) {
        module.name = in.text(in.byte() % 16);
        module.cmdline = in.text(in.byte() % 16);
        module.bytes = in.take(in.byte());
    }
    BootImages images{.kernel = kernel.view(),
                      .cmdline = cmdline,
                      .initrd = initrd,
                      .modules = {modules, in.below(4)},
                      .protocol = in.flag() ? protocol : BootProtocol::automatic};
    // The machine, too, is what the operator makes of it.
    static constexpr u32 many_ids[] = {0, 1, 2, 255, 256, 300};
    VirtioMmioNode nodes[2];
    MachineDescription machine = test::make_machine(apic_ids);
    const u8 shape = in.byte();
    if ((shape & 1) != 0) machine.apic_ids = many_ids;
    machine.com1 = (shape & 2) == 0;
    machine.com2 = (shape & 4) != 0;
    machine.keyboard_controller = (shape & 8) == 0;
    machine.vga = (shape & 0x10) == 0;
    if ((shape & 0x20) != 0) {
        for (VirtioMmioNode& node : nodes) {
            node = {.base = in.number(),
                    .length = static_cast<u32>(in.number()),
                    .gsi = static_cast<u8>(in.byte() % 32)};
        }
        machine.virtio_mmio = {nodes, 1 + in.below(2)};
    }
    if (shape == 0xFF) images.protocol = BootProtocol::firmware;
    const auto recognised = recognise_image(images.kernel);
    const auto loaded = load_guest(vm.memory, images, machine);
    if (!loaded) {
        MUST(!loaded.error().text.empty());
        return;
    }
    if (images.protocol == BootProtocol::automatic) MUST(recognised.has_value());
    const StartState& state = *loaded;
    if (images.protocol == BootProtocol::firmware) {
        MUST(state.mode == StartState::Mode::reset_vector && state.firmware);
        MUST(state.firmware->address.raw() + state.firmware->length == 4 * gib);
        MUST(state.firmware->alias_length <= state.firmware->length);
        return;
    }
    MUST(state.mode != StartState::Mode::reset_vector && !state.firmware);
    MUST(state.rip < 4 * gib);
    MUST((state.cr0 & 1) != 0);
    const bool long_mode = state.mode == StartState::Mode::long_mode;
    MUST(((state.cr0 >> 31) & 1) == (long_mode ? 1 : 0));
    MUST(state.gdtr.base == layout::gdt.raw());
    // The tables that every such guest finds.
    MUST(vm.get<u64>(platform::rsdp) == 0x2052545020445352);
}

}  // namespace bulkhead::fuzz
