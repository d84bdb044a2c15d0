// Multiboot 2 information: the input is the structure, its size field included.
#include "kernel/bootinfo/multiboot2.hpp"

#include "tests/fuzz/boot_info.hpp"
#include "tests/fuzz/physical.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    static BootInfo info;
    fuzz::Physical memory(in);
    const Bytes bytes = in.rest();
    memory.add(0x1000, {bytes.begin(), bytes.end()});
    const auto parsed = multiboot2::parse(memory, HostPhysical(0x1000), info);
    if (!parsed) {
        MUST(!parsed.error().text.empty());
        return;
    }
    fuzz::check_boot_info(info);
    const u64 sections = u64{info.elf_sections.count} * info.elf_sections.entry_size;
    MUST(sections == 0 || (info.elf_sections.address.raw() >= 0x1000 && sections <= bytes.size()));
}
