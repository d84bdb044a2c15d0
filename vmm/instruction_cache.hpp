// The last instructions that had to be decoded: a guest exits again and again at few places. Nothing is taken
// on trust: at each use, CR3, the paging entries that lead to the instruction and its bytes are compared with
// what they were when it was decoded.
//
// Why that is as good as a page walk and a decoding, whatever the guest does meanwhile:
//   The walk. What leads from CR3 and RIP to a guest-physical address is the content of the entries passed,
//   and nothing else that find() does not compare: the mode (64-bit code, four levels) is the caller's, and
//   whether the access is allowed (NX, SMEP, U/S) the processor decided when it fetched the instruction that
//   exited. A store() that no walk would allow, by an entry that is not present, is refused. Entries are read
//   from the guest's RAM at each use, one atomic load each: another processor of the guest's that changes
//   them meanwhile gets, as from a walk, either the old or the new.
//   The processor's TLB. It may still have executed by an older translation than the one in memory (SDM Vol.
//   3A, 4.10.4): then either memory has what was decoded, at the page that memory's entries name, or find()
//   finds nothing and the general path walks memory. Both look at memory alone and at the same bytes, so the
//   cache adds no staleness to that of the walk; a guest that does not invalidate has the choice made for it
//   either way, as on a processor whose TLB entry was just evicted.
//   The bytes. They are compared as they are in memory at the time of use, each of them, in one or two loads;
//   self-modifying code and another processor's stores are seen as a fetch at that time sees them.
//   The host's side. What is kept are host addresses inside the VM's own RAM, computed by GuestMemory::at()
//   for the whole length that is read later. RAM is attached before the first entry and stays for the VM's
//   life; when the page that hides RAM (the local APIC's) moves, everything is forgotten. No value read from
//   the guest becomes an address: they are compared only.
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

    InstructionCache() { clear(); }
    InstructionCache(const InstructionCache&) = delete;
    InstructionCache& operator=(const InstructionCache&) = delete;

    // The instruction there, or null. Good until the next store() or clear().
    [[nodiscard]] const Found* find(const CodePlace& place) const {
        const Entry& entry = entries_[slot_of(place.rip)];
        const bool same = ((entry.rip ^ place.rip) | (entry.cr3 ^ place.cr3)) == 0;
        return same && place.long_mode && still_holds(entry) ? &entry.found : nullptr;
    }

    // Keeps what was decoded of `bytes` there, where it is of use. `hidden`: a guest-physical page at which
    // the processor does not find the RAM that is there.
    void store(const CodePlace& place, const Instruction& instruction, Bytes bytes, const GuestMemory& memory,
               GuestPhysical hidden);
    // The guest's memory, or the hidden page, is another now.
    void clear();

  private:
    static constexpr unsigned slots = 8, levels = 4;
    static constexpr u64 nowhere = bit(63);  // no canonical address

    // An unused one is compared with itself, and differs.
    struct Entry {
        u64 rip = nowhere;
        u64 cr3 = 0;
        // The paging entries passed, from the root, and what they held. What is behind the last one stands
        // for itself.
        const u64* path[levels] = {};
        u64 values[levels] = {};
        const u8* code = nullptr;  // in RAM
        u64 mask = 0;              // of the eight bytes at `code` that belong to the instruction
        u64 first = 0;             // those
        const u8* tail = nullptr;  // the last eight bytes of one of more than eight; else `last` itself
        u64 last = 0;
        Found found{};
    };

    [[nodiscard]] static unsigned slot_of(u64 rip) { return static_cast<unsigned>(rip ^ rip >> 4) % slots; }
    // Another processor of the guest's may write at the same time.
    [[nodiscard]] static u64 load_entry(const u64* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
    [[nodiscard]] static u64 load_bytes(const u8* at) {
        u64 value = 0;
        __builtin_memcpy(&value, at, sizeof value);
        return value;
    }
    [[nodiscard]] static bool still_holds(const Entry& entry) {
        u64 difference = (load_bytes(entry.code) & entry.mask) ^ entry.first;
        for (unsigned i = 0; i < levels; ++i) difference |= load_entry(entry.path[i]) ^ entry.values[i];
        return (difference | (load_bytes(entry.tail) ^ entry.last)) == 0;
    }

    Entry entries_[slots];
};

}  // namespace bulkhead
