// Linux kernels.
#include "vmm/loader/bzimage.hpp"
#include "tests/fuzz/guest_image.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    static const std::vector<u8> kernels[] = {test::make_bzimage(), test::make_bzimage(0x206),
                                              test::make_bzimage(0x20A, 0x200)};
    const std::vector<u8> image = fuzz::mutate(in, kernels[in.below(3)]);
    const test::ExactCopy file({image.data(), image.size()});
    if (const auto parsed = LinuxImage::parse(file.view())) {
        MUST(range_within(parsed->payload_offset, parsed->payload_size, image.size()));
        MUST(parsed->header_end <= image.size());
        MUST(parsed->memory_size >= parsed->payload_size);
        MUST(!parsed->relocatable || is_power_of_two(parsed->alignment));
    }
    fuzz::load(in, image, BootProtocol::linux_boot);
}
