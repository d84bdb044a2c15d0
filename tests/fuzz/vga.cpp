// The VGA's registers, and the screen as text: whatever the registers say, it stays within the buffer.
#include "vmm/dev/vga_text.hpp"

#include "tests/fuzz/device.hpp"

using namespace bulkhead;

namespace {

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 0x30;
    // The buffer's size is the builder's choice.
    static inline usize size = VgaText::buffer_size;
    Bench() {
        for (usize i = 0; i < size; ++i) buffer[i] = static_cast<u8>(i * 7);
        chip.set_buffer({buffer.get(), size});
    }
    Device& device() { return chip; }
    u64 signal(u8 what, u64 value) {
        if (what < 8) {
            fuzz::TextSink sink;
            chip.print_screen(sink);
            MUST(fuzz::is_plain(sink.text, true));
            return sink.text.size();
        }
        char row[VgaText::max_columns];
        const auto text = chip.row(static_cast<unsigned>(value), {row, what % (sizeof row + 1)});
        MUST(fuzz::is_plain(text));
        return text.size();
    }
    u64 visible() {
        const auto geometry = chip.geometry();
        if (geometry) MUST(geometry->columns <= VgaText::max_columns && geometry->rows <= VgaText::max_rows);
        const auto cursor = chip.cursor();
        if (cursor) MUST(geometry && cursor->column < geometry->columns && cursor->row < geometry->rows);
        return (geometry ? geometry->columns * 100U + geometry->rows : 0) + (cursor ? 1 : 0);
    }
    std::unique_ptr<u8[]> buffer{new u8[size]};
    VgaText chip{clock};
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    Bench::size = in.flag() ? VgaText::buffer_size : in.value<u16>() % VgaText::buffer_size;
    fuzz::run_device<Bench>(in);
}
