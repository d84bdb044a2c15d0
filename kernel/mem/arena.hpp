// What exists for a VM is made here and goes when the arena goes: objects are never freed one by one, and no
// destructor runs. An object in an arena therefore holds nothing outside it.
#pragma once

#include <cstring>
#include <new>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "kernel/base/bits.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// Makes the allocation with index `fail_at` (0: the first) fail, and only that: for tests of "creation with
// the allocation failing at every possible point". `goes_on`: of each further attempt one that is an
// allocation later than in the attempt before.
struct AllocationFault {
    u64 fail_at = ~u64{0};
    u64 seen = 0;
    bool goes_on = false;
    u64 failures = 0;
    [[nodiscard]] bool strikes() {
        if (seen++ != fail_at) return false;
        ++failures;
        if (goes_on) fail_at = seen + failures;
        return true;
    }
};

class Arena {
  public:
    // Memory that is contiguous both physically and virtually.
    struct Chunk {
        u8* base = nullptr;
        HostPhysical physical{};
        u64 length = 0;
    };
    struct Pages {
        u8* base = nullptr;
        HostPhysical physical{};
    };
    static constexpr usize max_chunks = 16;

    Arena() = default;
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // Chunks are page-aligned, both ways, and used in the order given.
    [[nodiscard]] Result<> add(const Chunk& chunk);
    void set_fault(AllocationFault* fault) { fault_ = fault; }

    // Zero-filled. alignment: a power of two up to 2 MiB.
    [[nodiscard]] Result<u8*> allocate(u64 bytes, u64 alignment);
    // Zero-filled, physically contiguous; the address is a multiple of `alignment`, physically and virtually.
    [[nodiscard]] Result<Pages> allocate_pages(u64 pages, u64 alignment = page_size);

    template <class T, class... Arguments>
    [[nodiscard]] Result<T*> create(Arguments&&... arguments) {
        static_assert(std::is_trivially_destructible_v<T>, "no destructor runs in an arena");
        auto memory = allocate(sizeof(T), alignof(T));
        if (!memory) return std::unexpected(memory.error());
        return ::new (static_cast<void*>(*memory)) T(std::forward<Arguments>(arguments)...);
    }

    template <class T>
    [[nodiscard]] Result<std::span<T>> create_array(u64 count) {
        static_assert(std::is_trivially_destructible_v<T>, "no destructor runs in an arena");
        if (count > ~u64{0} / sizeof(T)) return fail("an array of {} elements is beyond any arena", count);
        auto memory = allocate(count * sizeof(T), alignof(T));
        if (!memory) return std::unexpected(memory.error());
        T* first = reinterpret_cast<T*>(*memory);
        for (u64 i = 0; i < count; ++i) ::new (static_cast<void*>(first + i)) T();
        return std::span<T>(first, count);
    }

    // The physical address of memory in this arena, and back; nothing for any other.
    [[nodiscard]] std::optional<HostPhysical> physical_of(const void* address) const;
    [[nodiscard]] u8* at(HostPhysical physical, u64 length) const;  // null

    // Forgets everything that was made, at once. The memory keeps its content until it is allocated anew.
    void release();
    // The same, and its chunks too: they are somebody else's from here on.
    void clear();

    [[nodiscard]] u64 total_bytes() const;
    [[nodiscard]] u64 used_bytes() const;  // alignment gaps and the ends of full chunks included
    [[nodiscard]] u64 free_bytes() const { return total_bytes() - used_bytes(); }

  private:
    FixedVector<Chunk, max_chunks> chunks_;
    usize current_ = 0;
    u64 offset_ = 0;  // within the current chunk
    AllocationFault* fault_ = nullptr;
};

}  // namespace bulkhead
