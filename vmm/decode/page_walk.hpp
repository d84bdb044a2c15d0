// The guest's own translation from linear to guest-physical addresses, walked in software: paging off, 32-bit
// paging (4 MiB pages with PSE, 40-bit ones with PSE-36), PAE, 4-level and 5-level paging.
// Intel SDM Vol. 3A, chapter 4 (June 2023 edition); AMD APM Vol. 2, chapter 5 (rev. 3.41).
// Not implemented: protection keys, shadow-stack pages. The CPUID policy must not offer them to a guest whose
// instructions are emulated.
#pragma once

#include <array>
#include <optional>

#include "kernel/base/types.hpp"
#include "vmm/cpu_state.hpp"

namespace bulkhead {

enum class ExchangeResult : u8 {
    exchanged,
    changed,  // the memory held another value, which is now in `expected`
    not_ram,  // nothing done: there is no atomic access to it
};

// What a walk needs of guest-physical memory. Addresses are naturally aligned here.
class PagingMemory {
  public:
    // size: 4 or 8. False where there is no RAM (the walk then sees all-ones, as of an empty bus).
    [[nodiscard]] virtual bool read_physical(GuestPhysical address, unsigned size, u64& value) = 0;

    // Atomically replaces `expected` by `desired`. size: 1, 2, 4 or 8.
    [[nodiscard]] virtual ExchangeResult compare_exchange(GuestPhysical address, unsigned size, u64& expected,
                                                          u64 desired) = 0;

  protected:
    ~PagingMemory() = default;
};

// The registers that govern paging.
struct PagingState {
    u64 cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
    bool ac = false;                             // RFLAGS.AC, which suspends SMAP
    u8 physical_bits = 36;                       // MAXPHYADDR, 32..52
    bool gigabyte_pages = true;                  // CPUID.80000001H:EDX.Page1GB
    std::optional<std::array<u64, 4>> pdptes{};  // PAE: the processor's own copies; else read from memory
};

struct PageAccess {
    bool write = false;
    bool user = false;
    bool fetch = false;
    bool implicit_supervisor =
        false;  // of descriptor tables and the like: never a user access, SMAP always on
};

struct WalkResult {
    enum class Status : u8 {
        ok,
        fault,
        contended,  // another processor kept changing the entries: execute the instruction again
    };
    Status status = Status::ok;
    u32 error_code = 0;       // fault
    GuestPhysical address{};  // ok

    // The #PF of a fault at `linear`.
    [[nodiscard]] Event event(GuestVirtual linear) const { return make_page_fault(linear.raw(), error_code); }
};

// Translates `linear`, which the caller has found canonical (long mode) or cut to 32 bits (else). Where the
// access is allowed, sets the accessed and dirty flags that hardware would set; where it is not, sets none.
[[nodiscard]] WalkResult walk_pages(PagingMemory& memory, const PagingState& state, GuestVirtual linear,
                                    PageAccess access);

}  // namespace bulkhead
