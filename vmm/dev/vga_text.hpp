// A VGA in text mode: the register file, and the screen as text for an operator. References: IBM Personal
// System/2 Hardware Interface Technical Reference (1988), "Video subsystem"; FreeVGA's register descriptions.
//
// Implemented: all standard registers of sequencer, CRT controller, graphics and attribute controller and
// DAC, with indices, write protection of the CRT controller and the attribute flip-flop; the switch between
// the colour and the monochrome addresses; input status with blanking and vertical retrace in guest time. The
// chip comes up in mode 3 (80 x 25, colour), as a video BIOS leaves it. The screen honours start address,
// row pitch, size and cursor.
// Simplified: the text buffer is plain RAM of the VM, without planes: writes to it take no exit. Timing is
// that of the 400-line mode whatever the CRT controller says.
// Missing: graphics modes (the operator sees that one is set), fonts, split screen. Ignored: everything that
// only changes colours or shapes.
//
// Offsets: 0-2Fh for ports 3B0h-3DFh, of which `port_ranges` are used. Not synchronised: one caller at a
// time.
#pragma once

#include <optional>
#include <span>

#include "kernel/base/format.hpp"
#include "vmm/dev/byte_device.hpp"

namespace bulkhead {

class VgaText final : public ByteDevice {
  public:
    static constexpr u64 buffer_size = 32 * kib;
    static constexpr unsigned max_columns = 132;
    static constexpr unsigned max_rows = 60;

    struct Geometry {
        unsigned columns = 0;
        unsigned rows = 0;
    };
    struct Cursor {
        unsigned column = 0;
        unsigned row = 0;
    };

    // Where the card answers, of ports 3B0h-3DFh: the rest belongs to others, such as a parallel port.
    struct PortRange {
        u64 base = 0;
        u64 length = 0;
        u64 offset = 0;
    };
    static constexpr PortRange port_ranges[] = {
        {0x3B4, 2, 0x04}, {0x3BA, 1, 0x0A}, {0x3C0, 16, 0x10}, {0x3D4, 2, 0x24}, {0x3DA, 1, 0x2A}};

    explicit VgaText(const Clock& clock) : clock_(clock) {}

    // The RAM at B8000h, normally buffer_size bytes of character and attribute pairs. The guest writes it at
    // any time. Without one the screen is empty.
    void set_buffer(std::span<const u8> buffer) { buffer_ = buffer; }

    [[nodiscard]] std::string_view name() const override { return "vga-text"; }
    void reset() override;

    // The size of the text screen, at most max_columns x max_rows; nothing while a graphics mode is set.
    [[nodiscard]] std::optional<Geometry> geometry() const;
    // Nothing while it is switched off or outside the screen.
    [[nodiscard]] std::optional<Cursor> cursor() const;
    // The characters of one row, printable ASCII only: lines and blocks become + - | #, others '.'. Returns
    // the part of `to` that was filled.
    [[nodiscard]] std::string_view row(unsigned number, std::span<char> to) const;
    // All rows, without trailing blanks, each ended by a newline.
    void print_screen(Sink& sink) const;

  private:
    u8 read_byte(u64 offset) override;
    void write_byte(u64 offset, u8 value) override;
    [[nodiscard]] u8 input_status() const;
    [[nodiscard]] bool colour() const { return (misc_ & 1) != 0; }
    void write_crtc(u8 value);
    void write_attribute(u8 value);
    void write_dac(u8 value);
    [[nodiscard]] u8 read_dac();

    const Clock& clock_;
    std::span<const u8> buffer_;

    u8 misc_ = 0;
    u8 feature_ = 0;
    u8 sequencer_index_ = 0;
    u8 sequencer_[8] = {};
    u8 crtc_index_ = 0;
    u8 crtc_[0x19] = {};
    u8 graphics_index_ = 0;
    u8 graphics_[16] = {};
    u8 attribute_index_ = 0;
    u8 attribute_[32] = {};
    bool attribute_data_next_ = false;

    u8 dac_mask_ = 0xFF;
    u8 dac_read_index_ = 0;
    u8 dac_write_index_ = 0;
    u8 dac_component_ = 0;  // 0 red, 1 green, 2 blue
    bool dac_reading_ = false;
    u8 dac_[256][3] = {};
};

}  // namespace bulkhead
