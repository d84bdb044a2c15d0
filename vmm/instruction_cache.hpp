// The last instructions that had to be decoded: a guest exits again and again at few places. Nothing is taken
// on trust: at each use, CR3, the paging entries that lead to the instruction and its bytes are compared with
// what they were when it was decoded. A guest may change its code and its page tables at any time, and what
// is found is what a page walk and the decoder would find then.
//
// Only for 64-bit code under four-level paging, in RAM, that does not reach into another page.
#pragma once

#include "kernel/base/bytes.hpp"
#include "vmm/decode/decoder.hpp"
#include "vmm/guest_memory.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead {

class InstructionCache {
  public:
    struct Found {
        Instruction instruction{};
        u8 bytes[Instruction::max_length] = {};
    };

    // The instruction there, or null. Good until the next store() or clear().
    [[nodiscard]] const Found* find(const CodePlace& place) const {
        const Entry& entry = entries_[slot_of(place.rip)];
        if (entry.rip != place.rip || entry.cr3 != place.cr3 || !place.long_mode) return nullptr;
        return still_holds(entry) ? &entry.found : nullptr;
    }

    // Keeps what was decoded of `bytes` there, where it is of use. `hidden`: a guest-physical page at which
    // the processor does not find the RAM that is there.
    void store(const CodePlace& place, const Instruction& instruction, Bytes bytes, const GuestMemory& memory,
               GuestPhysical hidden);
    // The guest's memory, or the hidden page, is another now.
    void clear();

  private:
    static constexpr unsigned slots = 8, levels = 4;
    static constexpr u64 nowhere = ~u64{0};  // no instruction of more than a byte is there

    struct Entry {
        u64 rip = nowhere;
        u64 cr3 = 0;
        const u64* path[levels] = {};  // the paging entries passed, from the root
        u64 values[levels] = {};
        u8 depth = 0;
        const u8* code = nullptr;  // in RAM
        u64 mask = 0;              // of the bytes at `code` that belong to it
        u64 first = 0;             // those
        u64 last = 0;              // of an instruction of more than eight bytes, the last eight
        Found found{};
    };

    [[nodiscard]] static unsigned slot_of(u64 rip) { return static_cast<unsigned>(rip ^ rip >> 4) % slots; }
    [[nodiscard]] static bool still_holds(const Entry& entry);

    Entry entries_[slots];
};

}  // namespace bulkhead
