#include "vmm/dev/vga_text.hpp"

#include <cstring>

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace {

constexpr u64 port_base = 0x3B0;

// The ports, as offsets.
enum : u64 {
    mono_crtc_index = 0x3B4 - port_base,
    mono_crtc_data = 0x3B5 - port_base,
    mono_status = 0x3BA - port_base,
    attribute_port = 0x3C0 - port_base,
    attribute_read = 0x3C1 - port_base,
    misc_write_status0 = 0x3C2 - port_base,
    sequencer_address = 0x3C4 - port_base,
    sequencer_data = 0x3C5 - port_base,
    dac_mask = 0x3C6 - port_base,
    dac_read_address = 0x3C7 - port_base,
    dac_write_address = 0x3C8 - port_base,
    dac_data = 0x3C9 - port_base,
    feature_read = 0x3CA - port_base,
    misc_read = 0x3CC - port_base,
    graphics_address = 0x3CE - port_base,
    graphics_data = 0x3CF - port_base,
    colour_crtc_index = 0x3D4 - port_base,
    colour_crtc_data = 0x3D5 - port_base,
    colour_status = 0x3DA - port_base,
};

// CRT controller registers.
enum : u8 {
    crtc_display_end = 0x01,
    crtc_overflow = 0x07,
    crtc_max_scan_line = 0x09,
    crtc_cursor_start = 0x0A,
    crtc_start_high = 0x0C,
    crtc_start_low = 0x0D,
    crtc_cursor_high = 0x0E,
    crtc_cursor_low = 0x0F,
    crtc_retrace_end = 0x11,
    crtc_vertical_display_end = 0x12,
    crtc_offset = 0x13,
    crtc_count = 0x19,
};

// BIOS mode 3: 80 x 25 characters of 9 x 16 dots.
constexpr u8 mode3_misc = 0x67;
constexpr u8 mode3_sequencer[5] = {0x03, 0x00, 0x03, 0x00, 0x02};
constexpr u8 mode3_crtc[crtc_count] = {0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00,
                                       0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00, 0x00, 0x9C, 0x8E,
                                       0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF};
constexpr u8 mode3_graphics[9] = {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x0F, 0xFF};
constexpr u8 mode3_attribute[21] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A,
                                    0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x0C, 0x00, 0x0F, 0x08, 0x00};

// 640 x 400 at 70 Hz: 449 lines of 31.778 us, 400 of them shown, retrace in lines 412 and 413. A line is
// counted in hundredths, of which 80 show dots.
constexpr u64 steps_a_line = 100;
constexpr u64 shown_steps = 80;
constexpr u64 lines = 449;
constexpr u64 shown_lines = 400;
constexpr u64 retrace_line = 412;
constexpr u64 retrace_lines = 2;
constexpr u64 steps_hz = 31'469 * steps_a_line;

// Code page 437 in printable ASCII.
constexpr char printable(u8 character) {
    if (character >= 0x20 && character < 0x7F) return static_cast<char>(character);
    if (character == 0x00 || character == 0xFF) return ' ';
    if (character == 0xB3 || character == 0xBA) return '|';
    if (character == 0xC4 || character == 0xCD) return '-';
    if (character >= 0xB0 && character <= 0xB2) return '#';
    if (character >= 0xDB && character <= 0xDF) return '#';
    if (character >= 0xB3 && character <= 0xDA) return '+';
    return '.';
}

}  // namespace

void VgaText::reset() {
    misc_ = mode3_misc;
    feature_ = 0;
    sequencer_index_ = crtc_index_ = graphics_index_ = 0;
    attribute_index_ = 0x20;  // the screen is on
    attribute_data_next_ = false;
    std::memset(sequencer_, 0, sizeof(sequencer_));
    std::memset(graphics_, 0, sizeof(graphics_));
    std::memset(attribute_, 0, sizeof(attribute_));
    std::memcpy(sequencer_, mode3_sequencer, sizeof(mode3_sequencer));
    std::memcpy(crtc_, mode3_crtc, sizeof(mode3_crtc));
    std::memcpy(graphics_, mode3_graphics, sizeof(mode3_graphics));
    std::memcpy(attribute_, mode3_attribute, sizeof(mode3_attribute));
    dac_mask_ = 0xFF;
    dac_read_index_ = dac_write_index_ = dac_component_ = 0;
    dac_reading_ = false;
    // The 64 colours of the EGA, as bits rgbRGB: two thirds and one third of the full level.
    for (unsigned i = 0; i < 256; ++i) {
        for (unsigned component = 0; component < 3; ++component) {
            const unsigned strong = (i >> (2 - component)) & 1;
            const unsigned weak = (i >> (5 - component)) & 1;
            dac_[i][component] = i < 64 ? static_cast<u8>(strong * 42 + weak * 21) : u8{0};
        }
    }
}

u8 VgaText::input_status() const {
    const u64 step = clock_.to_count(clock_.now(), steps_hz) % (lines * steps_a_line);
    const u64 line = step / steps_a_line;
    const bool blank = line >= shown_lines || step % steps_a_line >= shown_steps;
    const bool retrace = line >= retrace_line && line < retrace_line + retrace_lines;
    return static_cast<u8>((blank ? 1 : 0) | (retrace ? 8 : 0));
}

u8 VgaText::read_byte(u64 offset) {
    switch (offset) {
        case mono_crtc_index:
        case mono_crtc_data:
        case mono_status:
            if (colour()) return 0xFF;
            break;
        case colour_crtc_index:
        case colour_crtc_data:
        case colour_status:
            if (!colour()) return 0xFF;
            break;
        default: break;
    }
    switch (offset) {
        case mono_crtc_index:
        case colour_crtc_index: return crtc_index_;
        case mono_crtc_data:
        case colour_crtc_data: return crtc_index_ < crtc_count ? crtc_[crtc_index_] : u8{0};
        case mono_status:
        case colour_status: attribute_data_next_ = false; return input_status();
        case attribute_port: return attribute_index_;
        case attribute_read: return attribute_[attribute_index_ & 31];
        case misc_write_status0: return 0x10;  // a monitor is attached
        case sequencer_address: return sequencer_index_;
        case sequencer_data: return sequencer_[sequencer_index_];
        case dac_mask: return dac_mask_;
        case dac_read_address: return dac_reading_ ? 3 : 0;
        case dac_write_address: return dac_write_index_;
        case dac_data: return read_dac();
        case feature_read: return feature_;
        case misc_read: return misc_;
        case graphics_address: return graphics_index_;
        case graphics_data: return graphics_[graphics_index_];
        default: return 0xFF;
    }
}

void VgaText::write_byte(u64 offset, u8 value) {
    switch (offset) {
        case mono_crtc_index:
        case colour_crtc_index:
            if (colour() == (offset == colour_crtc_index)) crtc_index_ = value & 0x3F;
            break;
        case mono_crtc_data:
        case colour_crtc_data:
            if (colour() == (offset == colour_crtc_data)) write_crtc(value);
            break;
        case mono_status:
        case colour_status:
            if (colour() == (offset == colour_status)) feature_ = value & 3;
            break;
        case attribute_port: write_attribute(value); break;
        case misc_write_status0: misc_ = value & 0xEF; break;
        case sequencer_address: sequencer_index_ = value & 7; break;
        case sequencer_data: sequencer_[sequencer_index_] = value; break;
        case dac_mask: dac_mask_ = value; break;
        case dac_read_address:
            dac_read_index_ = value;
            dac_component_ = 0;
            dac_reading_ = true;
            break;
        case dac_write_address:
            dac_write_index_ = value;
            dac_component_ = 0;
            dac_reading_ = false;
            break;
        case dac_data: write_dac(value); break;
        case graphics_address: graphics_index_ = value & 15; break;
        case graphics_data: graphics_[graphics_index_] = value; break;
        default: break;
    }
}

void VgaText::write_crtc(u8 value) {
    if (crtc_index_ >= crtc_count) return;
    // Bit 7 of register 11h protects 0-7, except the line compare bit of the overflow register.
    if (crtc_index_ <= crtc_overflow && has_bit(crtc_[crtc_retrace_end], 7)) {
        if (crtc_index_ == crtc_overflow) {
            crtc_[crtc_overflow] = static_cast<u8>((crtc_[crtc_overflow] & 0xEF) | (value & 0x10));
        }
        return;
    }
    crtc_[crtc_index_] = value;
}

void VgaText::write_attribute(u8 value) {
    if (!attribute_data_next_) {
        attribute_index_ = value & 0x3F;
    } else {
        attribute_[attribute_index_ & 31] = value;
    }
    attribute_data_next_ = !attribute_data_next_;
}

void VgaText::write_dac(u8 value) {
    dac_[dac_write_index_][dac_component_] = value & 0x3F;
    if (++dac_component_ == 3) {
        dac_component_ = 0;
        ++dac_write_index_;
    }
}

u8 VgaText::read_dac() {
    const u8 value = dac_[dac_read_index_][dac_component_];
    if (++dac_component_ == 3) {
        dac_component_ = 0;
        ++dac_read_index_;
    }
    return value;
}

std::optional<VgaText::Geometry> VgaText::geometry() const {
    if (has_bit(graphics_[6], 0)) return std::nullopt;
    const unsigned end = crtc_[crtc_vertical_display_end] | (crtc_[crtc_overflow] & 0x02u) << 7 |
                         (crtc_[crtc_overflow] & 0x40u) << 3;
    // Bit 7 doubles every line.
    unsigned height = (crtc_[crtc_max_scan_line] & 31u) + 1;
    if (has_bit(crtc_[crtc_max_scan_line], 7)) height *= 2;
    const unsigned columns = crtc_[crtc_display_end] + 1u;
    const unsigned rows = (end + 1) / height;
    return Geometry{.columns = columns < max_columns ? columns : max_columns,
                    .rows = rows < max_rows ? rows : max_rows};
}

std::optional<VgaText::Cursor> VgaText::cursor() const {
    const auto size = geometry();
    const unsigned pitch = crtc_[crtc_offset] * 2u;
    if (!size || pitch == 0 || has_bit(crtc_[crtc_cursor_start], 5)) return std::nullopt;
    const unsigned start = crtc_[crtc_start_high] << 8 | crtc_[crtc_start_low];
    const unsigned at = crtc_[crtc_cursor_high] << 8 | crtc_[crtc_cursor_low];
    const unsigned distance = (at - start) & 0xFFFF;
    const Cursor cursor{.column = distance % pitch, .row = distance / pitch};
    if (cursor.column >= size->columns || cursor.row >= size->rows) return std::nullopt;
    return cursor;
}

std::string_view VgaText::row(unsigned number, std::span<char> to) const {
    const auto size = geometry();
    if (!size || number >= size->rows || buffer_.empty()) return {};
    const u64 start = static_cast<u64>(crtc_[crtc_start_high] << 8 | crtc_[crtc_start_low]);
    const u64 pitch = crtc_[crtc_offset] * u64{2};
    const usize count = size->columns < to.size() ? size->columns : to.size();
    for (usize i = 0; i < count; ++i) {
        // Addresses wrap at the buffer's end. Each character is read once: the guest may be writing it.
        const u64 at = (start + number * pitch + i) * 2 % buffer_.size();
        to[i] = printable(*static_cast<const volatile u8*>(&buffer_[at]));
    }
    return {to.data(), count};
}

void VgaText::print_screen(Sink& sink) const {
    const auto size = geometry();
    if (!size) {
        sink.write("(a graphics mode is set)\n");
        return;
    }
    char text[max_columns];
    for (unsigned i = 0; i < size->rows; ++i) {
        std::string_view line = row(i, text);
        while (line.ends_with(' ')) line.remove_suffix(1);
        sink.write(line);
        sink.write("\n");
    }
}

}  // namespace bulkhead
