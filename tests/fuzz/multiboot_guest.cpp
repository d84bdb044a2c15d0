// Kernels for a Multiboot loader, of both versions, ELF and flat.
#include "tests/fuzz/guest_image.hpp"
#include "vmm/loader/multiboot_header.hpp"

using namespace bulkhead;

namespace {

std::vector<u8> make(fuzz::Input& in) {
    const u8 kind = in.byte();
    switch (kind % 4) {
        case 0: return test::make_multiboot1_flat();
        case 1: {
            std::vector<u8> image = test::make_elf({.pvh_note = false});
            test::put_multiboot1(image, 0x1C0, in.value<u16>() & 7U);
            return image;
        }
        default: {
            std::vector<u8> tags;
            for (unsigned i = 0; i < (kind >> 2) % 5U; ++i) {
                std::vector<u32> words;
                const u16 type = in.below(12);
                const unsigned count = static_cast<unsigned>(in.below(6));
                for (unsigned j = 0; j < count; ++j) words.push_back(static_cast<u32>(in.number()));
                const std::vector<u8> tag = test::make_tag(type, in.byte() & 1, words);
                tags.insert(tags.end(), tag.begin(), tag.end());
            }
            std::vector<u8> image = test::make_elf({.pvh_note = false});
            image.resize(0x600);
            test::put_multiboot2(image, kind % 4 == 2 ? 0x508 : 0x500, tags);
            image.resize(0x800);
            return image;
        }
    }
}

void check(const Result<MultibootHeader>& header, usize size) {
    if (!header) {
        MUST(!header.error().text.empty());
        return;
    }
    MUST(header->offset < size);
    if (!header->addresses) return;
    MUST(header->addresses->file_offset <= size);
    MUST(header->addresses->load_start <= header->addresses->load_end);
    MUST(header->addresses->load_end <= header->addresses->memory_end);
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    std::vector<u8> image = make(in);
    image = fuzz::mutate(in, std::move(image));
    const test::ExactCopy file({image.data(), image.size()});
    if (has_multiboot1_header(file.view())) check(parse_multiboot1_header(file.view()), image.size());
    if (has_multiboot2_header(file.view())) check(parse_multiboot2_header(file.view()), image.size());
    fuzz::load(in, image, in.flag() ? BootProtocol::multiboot1 : BootProtocol::multiboot2);
}
