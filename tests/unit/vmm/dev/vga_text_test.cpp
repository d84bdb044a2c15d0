#include "vmm/dev/vga_text.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/fakes/fake_clock.hpp"

using namespace bulkhead;

namespace {

struct Text final : Sink {
    void write(std::string_view more) override { text += more; }
    std::string text;
};

struct Card {
    FakeClock clock;
    std::vector<u8> buffer = std::vector<u8>(VgaText::buffer_size);
    VgaText vga{clock};

    Card() {
        vga.set_buffer(buffer);
        vga.reset();
    }
    u8 in(u64 port) { return static_cast<u8>(vga.read(port - 0x3B0, 1)); }
    void out(u64 port, unsigned value) { vga.write(port - 0x3B0, 1, value); }
    void crtc(unsigned index, unsigned value) { vga.write(0x24, 2, index | value << 8); }
    u8 crtc(unsigned index) {
        out(0x3D4, index);
        return in(0x3D5);
    }
    void put(unsigned at, std::string_view text) {
        for (const char c : text) {
            buffer[at * 2 % buffer.size()] = static_cast<u8>(c);
            buffer[(at * 2 + 1) % buffer.size()] = 0x07;
            ++at;
        }
    }
    std::string row(unsigned number) {
        char line[VgaText::max_columns];
        std::string text(vga.row(number, line));
        while (text.ends_with(' ')) text.pop_back();
        return text;
    }
};

}  // namespace

TEST_CASE_METHOD(Card, "the card comes up in mode 3 and shows 80 by 25 characters") {
    REQUIRE(vga.geometry());
    CHECK(vga.geometry()->columns == 80);
    CHECK(vga.geometry()->rows == 25);
    CHECK(in(0x3CC) == 0x67);
    put(0, "first");
    put(24 * 80 + 75, "corner");
    CHECK(row(0) == "first");
    CHECK(row(24) == std::string(75, ' ') + "corne");
    CHECK(row(25).empty());
    Text screen;
    vga.print_screen(screen);
    CHECK(screen.text == "first\n" + std::string(23, '\n') + std::string(75, ' ') + "corne\n");
}

TEST_CASE_METHOD(Card, "the start address scrolls and wraps at the buffer's end") {
    put(80, "second");
    crtc(0x0C, 0);
    crtc(0x0D, 80);
    CHECK(row(0) == "second");
    crtc(0x0C, 0x3F);
    crtc(0x0D, 0xFF);  // the last cell
    put(0x3FFF, "wrapped");
    CHECK(row(0).starts_with("wrapped"));
    crtc(0x0C, 0xFF);
    CHECK(row(0).starts_with("wrapped"));
}

TEST_CASE_METHOD(Card, "an 8-line font makes 50 rows, a short row 40 columns") {
    crtc(0x09, 0x47);
    CHECK(vga.geometry()->rows == 50);
    put(49 * 80, "last");
    CHECK(row(49) == "last");
    crtc(0x11, 0x0E);  // lifts the protection
    crtc(0x01, 39);
    crtc(0x13, 20);
    CHECK(vga.geometry()->columns == 40);
    put(40, "row one");
    CHECK(row(1) == "row one");
}

TEST_CASE_METHOD(Card, "the cursor is where the CRT controller has it, unless it is off") {
    REQUIRE(vga.cursor());
    CHECK(vga.cursor()->row == 0);
    crtc(0x0E, (5 * 80 + 7) >> 8);
    crtc(0x0F, (5 * 80 + 7) & 0xFF);
    REQUIRE(vga.cursor());
    CHECK(vga.cursor()->row == 5);
    CHECK(vga.cursor()->column == 7);
    CHECK(crtc(0x0F) == ((5 * 80 + 7) & 0xFF));
    crtc(0x0A, 0x20);
    CHECK_FALSE(vga.cursor());
    crtc(0x0A, 0x0D);
    crtc(0x0E, 0xFF);
    CHECK_FALSE(vga.cursor());
}

TEST_CASE_METHOD(Card, "CRT controller registers 0 to 7 are protected") {
    crtc(0x00, 0xAA);
    CHECK(crtc(0x00) == 0x5F);
    crtc(0x07, 0xFF);
    CHECK(crtc(0x07) == 0x1F);
    crtc(0x07, 0x00);
    CHECK(crtc(0x07) == 0x0F);  // only line compare moves
    crtc(0x11, 0x0E);
    crtc(0x00, 0xAA);
    CHECK(crtc(0x00) == 0xAA);
    crtc(0x3F, 0x55);
    CHECK(crtc(0x3F) == 0x00);
}

TEST_CASE_METHOD(Card, "the attribute controller's flip-flop is reset by reading the status") {
    in(0x3DA);
    out(0x3C0, 0x01);
    out(0x3C0, 0x2A);
    out(0x3C0, 0x02);
    in(0x3DA);
    out(0x3C0, 0x01 | 0x20);
    CHECK(in(0x3C1) == 0x2A);
    CHECK(in(0x3C0) == 0x21);
    in(0x3DA);
    out(0x3C0, 0x3F);
    out(0x3C0, 0x99);  // past the last register: kept apart
    CHECK(in(0x3C1) == 0x99);
}

TEST_CASE_METHOD(Card, "the DAC steps through its components") {
    out(0x3C8, 255);
    for (const unsigned v : {0x11u, 0x22u, 0xFFu, 0x01u}) out(0x3C9, v);
    CHECK(in(0x3C8) == 0);  // wrapped
    out(0x3C7, 255);
    CHECK(in(0x3C7) == 3);
    CHECK(in(0x3C9) == 0x11);
    CHECK(in(0x3C9) == 0x22);
    CHECK(in(0x3C9) == 0x3F);
    CHECK(in(0x3C9) == 0x01);
    out(0x3C6, 0x0F);
    CHECK(in(0x3C6) == 0x0F);
}

TEST_CASE_METHOD(Card, "either the colour or the monochrome addresses answer") {
    CHECK(in(0x3B4) == 0xFF);
    out(0x3B4, 0x0E);
    CHECK(crtc(0x0E) == 0);
    out(0x3C2, 0x66);
    CHECK(in(0x3D4) == 0xFF);
    CHECK(in(0x3DA) == 0xFF);
    out(0x3B4, 0x0A);
    CHECK(in(0x3B5) == 0x0D);
    out(0x3D5, 0x00);
    CHECK(in(0x3B5) == 0x0D);
    CHECK(in(0x3BA) != 0xFF);
}

TEST_CASE_METHOD(Card, "retrace comes 70 times a second") {
    unsigned retraces = 0, blanks = 0, samples = 0;
    bool last = false;
    for (; samples < 200'000; ++samples) {
        clock.advance_us(5);
        const u8 status = in(0x3DA);
        const bool now = (status & 8) != 0;
        if (now && !last) ++retraces;
        if (now) CHECK((status & 1) != 0);
        if ((status & 1) != 0) ++blanks;
        last = now;
    }
    CHECK(retraces == 70);
    CHECK(blanks > samples / 5);
    CHECK(blanks < samples / 2);
}

TEST_CASE_METHOD(Card, "a graphics mode is told, not drawn") {
    out(0x3CE, 6);
    out(0x3CF, 0x05);
    CHECK_FALSE(vga.geometry());
    CHECK_FALSE(vga.cursor());
    CHECK(row(0).empty());
    Text screen;
    vga.print_screen(screen);
    CHECK(screen.text == "(a graphics mode is set)\n");
}

TEST_CASE_METHOD(Card, "only printable characters reach the operator") {
    for (unsigned c = 0; c < 256; ++c) {
        buffer[c * 2] = static_cast<u8>(c);
    }
    Text screen;
    vga.print_screen(screen);
    for (const char c : screen.text) REQUIRE(((c >= 0x20 && c < 0x7F) || c == '\n'));
    buffer[0] = 0xC9;
    buffer[2] = 0xCD;
    buffer[4] = 0xBA;
    buffer[6] = 0xDB;
    CHECK(row(0).starts_with("+-|#"));
}

TEST_CASE_METHOD(Card, "hostile register values keep the screen within bounds") {
    u32 seed = 1;
    const auto random = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 8; };
    for (int i = 0; i < 20'000; ++i) {
        const u32 r = random();
        vga.write(r & 63, 1u << ((r >> 6) & 3), static_cast<u64>(random()) << 16 | random());
        (void)vga.read((r >> 8) & 63, 1u << ((r >> 14) & 3));
        clock.advance(r);
        if (i % 100 != 0) continue;
        if (const auto size = vga.geometry()) {
            REQUIRE(size->columns <= VgaText::max_columns);
            REQUIRE(size->rows <= VgaText::max_rows);
            Text screen;
            vga.print_screen(screen);
        }
        (void)vga.cursor();
        if (i % 1000 == 0) vga.reset();
    }
    // A small buffer is never left.
    std::vector<u8> tiny(3, 'x');
    VgaText small(clock);
    small.set_buffer(tiny);
    small.reset();
    char line[200];
    CHECK(small.row(24, line).size() == 80);
    VgaText none(clock);
    none.reset();
    CHECK(none.row(0, line).empty());
}
