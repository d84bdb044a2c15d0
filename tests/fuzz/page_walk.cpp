// The guest's page tables, walked while they change.
#include "vmm/decode/page_walk.hpp"

#include "tests/fuzz/guest_machine.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    fuzz::GuestMachine memory(in);
    memory.set_state(in);
    PagingState state{.cr0 = memory.read(Register::cr0) | cr0::pg,
                      .cr3 = memory.read(Register::cr3),
                      .cr4 = memory.read(Register::cr4),
                      .efer = memory.read(Register::efer)};
    const u8 shape = in.byte();
    state.ac = (shape & 1) != 0;
    state.gigabyte_pages = (shape & 2) != 0;
    state.physical_bits = static_cast<u8>(32 + (shape >> 2) % 9);
    if ((shape & 0x80) != 0) state.pdptes = memory.pdptes();
    memory.poke(in.value<u16>() & 0x7FF8, in.take(16));

    const bool long_mode = (state.efer & efer::lma) != 0;
    while (!in.empty()) {
        u64 linear = in.number();
        const u8 how = in.byte();
        if (!long_mode) {
            linear = static_cast<u32>(linear);
        } else {
            const unsigned unused = (state.cr4 & cr4::la57) != 0 ? 7 : 16;
            linear = static_cast<u64>(static_cast<i64>(linear << unused) >> unused);
        }
        const PageAccess access{.write = (how & 1) != 0 && (how & 4) == 0,
                                .user = (how & 2) != 0,
                                .fetch = (how & 4) != 0,
                                .implicit_supervisor = (how & 0x30) == 0x30};
        const u64 before = memory.accesses;
        const WalkResult result = walk_pages(memory, state, GuestVirtual(linear), access);
        MUST(memory.accesses - before <= 8 * 10 + 8);
        if (result.status == WalkResult::Status::contended) MUST(!memory.steady());
        if (result.status == WalkResult::Status::ok) {
            // PSE-36 has 40 bits whatever else the processor has.
            MUST(result.address.raw() < u64{1} << 40);
            MUST(result.address.offset_in(page_size) == (linear & 0xFFF));
        }
        if (!memory.steady() || result.status != WalkResult::Status::ok) continue;
        // Once translated, always translated: the flags that were set forbid nothing. But in a table that
        // maps itself they may be a PAE PDPTE's reserved bits.
        const WalkResult again = walk_pages(memory, state, GuestVirtual(linear), access);
        const bool pdptes = !long_mode && (state.cr4 & cr4::pae) != 0;
        MUST(again.status == WalkResult::Status::ok || pdptes || memory.device_reads != 0);
    }
}
