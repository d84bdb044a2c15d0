#include "vmm/loader/bios_area.hpp"

#include <array>

#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

constexpr u64 data_area = 0x400;
constexpr u64 rom_segment = 0xF0000;
constexpr u16 iret_offset = 0xFF53;   // where IBM's BIOS has its dummy interrupt routine
constexpr u16 reset_offset = 0xE05B;  // likewise, the start of its power-on code

void write_data_area(MutableBytes area, const MachineDescription& machine) {
    const auto set = [&area]<class T>(usize offset, T value) { (void)write_at(area, offset, value); };
    if (machine.com1) set(0x00, platform::com1.raw());
    if (machine.com2) set(machine.com1 ? 0x02 : 0x00, platform::com2.raw());
    set(0x0E, static_cast<u16>(platform::ebda >> 4));
    // Equipment: coprocessor, PS/2 pointing device no, 80x25 colour (or EGA/VGA: 00b), count of serial ports.
    const u16 serial_ports = static_cast<u16>(machine.com1 + machine.com2);
    set(0x10, static_cast<u16>(0x0002 | serial_ports << 9));
    set(0x13, static_cast<u16>(platform::ebda / kib));
    set(0x1A, u16{0x1E});  // keyboard buffer: head, tail, start, end
    set(0x1C, u16{0x1E});
    set(0x80, u16{0x1E});
    set(0x82, u16{0x3E});
    set(0x96, u8{0x10});  // enhanced keyboard
    if (machine.vga) {
        set(0x49, u8{3});        // video mode
        set(0x4A, u16{80});      // columns
        set(0x4C, u16{4096});    // bytes of a page
        set(0x60, u16{0x0607});  // cursor's scan lines, in 8-line terms
        set(0x63, u16{0x3D4});   // CRTC
        set(0x65, u8{0x29});     // mode control register
        set(0x66, u8{0x30});     // palette register
        set(0x84, u8{24});       // lines less one
        set(0x85, u16{16});      // scan lines of a character
        set(0x87, u8{0x60});     // 256 KiB of display memory
        set(0x88, u8{0xF9});     // EGA switches
        set(0x89, u8{0x51});     // VGA active, 400 scan lines
        set(0x8A, u8{0x08});     // display combination: VGA, colour
    }
}

}  // namespace

Result<> write_bios_area(GuestMemory& memory, const MachineDescription& machine) {
    u8* const low = memory.at(GuestPhysical(0), 0x500);
    u8* const rom = memory.at(GuestPhysical(rom_segment), 0x10000);
    u8* const ebda = memory.at(GuestPhysical(platform::ebda), platform::ebda_size);
    if (low == nullptr || rom == nullptr || ebda == nullptr) {
        return fail("the VM has no RAM at 0, {:#x} or {:#x} for the BIOS areas", platform::ebda, rom_segment);
    }
    for (usize vector = 0; vector < 256; ++vector) {
        const u16 target[] = {iret_offset, rom_segment >> 4};
        std::memcpy(low + vector * sizeof(target), target, sizeof(target));
    }
    std::memset(low + data_area, 0, 0x100);
    write_data_area({low + data_area, 0x100}, machine);

    std::memset(ebda, 0, platform::ebda_size);
    ebda[0] = platform::ebda_size / kib;

    std::memset(rom + platform::mp_table_limit - rom_segment, 0,
                platform::bios_area_end - platform::mp_table_limit);
    rom[iret_offset] = 0xCF;
    // mov al, 6; mov dx, 0CF9h; out dx, al; hlt; jmp short to the hlt
    constexpr std::array<u8, 9> reset_code = {0xB0,
                                              platform::reset_value,
                                              0xBA,
                                              platform::reset_control.raw() & 0xFF,
                                              platform::reset_control.raw() >> 8,
                                              0xEE,
                                              0xF4,
                                              0xEB,
                                              0xFD};
    std::memcpy(rom + reset_offset, reset_code.data(), reset_code.size());
    // jmp F000:E05B; the BIOS date; the machine's model byte: PC/AT.
    constexpr std::array<u8, 16> reset_vector = {0xEA,
                                                 reset_offset & 0xFF,
                                                 reset_offset >> 8,
                                                 0x00,
                                                 0xF0,
                                                 '0',
                                                 '1',
                                                 '/',
                                                 '0',
                                                 '1',
                                                 '/',
                                                 '2',
                                                 '6',
                                                 0,
                                                 0xFC,
                                                 0};
    std::memcpy(rom + 0xFFF0, reset_vector.data(), reset_vector.size());
    return {};
}

}  // namespace bulkhead
