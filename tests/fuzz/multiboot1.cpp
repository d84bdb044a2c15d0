// Multiboot 1 information: the input is the memory that its addresses point into.
#include "kernel/bootinfo/multiboot1.hpp"

#include "tests/fuzz/boot_info.hpp"
#include "tests/fuzz/physical.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    static BootInfo info;
    fuzz::Physical memory(in);
    const Bytes bytes = in.rest();
    memory.add(0x1000, {bytes.begin(), bytes.end()});
    const auto parsed = multiboot1::parse(memory, HostPhysical(0x1000), info);
    if (!parsed) {
        MUST(!parsed.error().text.empty());
        return;
    }
    fuzz::check_boot_info(info);
}
