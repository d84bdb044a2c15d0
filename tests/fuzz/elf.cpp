// ELF kernels with the PVH entry note.
#include "vmm/loader/elf.hpp"

#include "tests/fuzz/guest_image.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    static const std::vector<u8> kernels[] = {
        test::make_elf(), test::make_elf({.wide = false, .virtual_base = 0x80200000, .entry = 0x80200010}),
        test::make_elf({.wide_note = true})};
    const std::vector<u8> image = fuzz::mutate(in, kernels[in.below(3)]);
    const test::ExactCopy file({image.data(), image.size()});
    if (const auto parsed = ElfImage::parse(file.view())) {
        for (u16 i = 0; i < parsed->segment_count(); ++i) {
            const ElfSegment segment = parsed->segment(i);
            if (segment.type != ElfImage::load) continue;
            MUST(range_within(segment.offset, segment.file_size, image.size()));
            MUST(segment.physical_address + segment.memory_size >= segment.physical_address);
            MUST(segment.file_size <= segment.memory_size);
        }
        (void)parsed->physical_entry();
        if (const auto note = parsed->find_note("Xen", 18)) {
            const u8* start = file.view().data();
            MUST(note->empty() ||
                 (note->data() >= start && note->data() + note->size() <= start + image.size()));
        }
    }
    fuzz::load(in, image, BootProtocol::pvh);
}
