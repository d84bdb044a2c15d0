// Physical memory of a machine: sparse, zero-filled, at `window() + physical address`.
#pragma once

#include <sys/mman.h>

#include <cstdlib>

#include "kernel/base/types.hpp"

namespace bulkhead {

class FakeMemory {
  public:
    explicit FakeMemory(u64 bytes) : bytes_(bytes) {
        base_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
        if (base_ == MAP_FAILED) std::abort();
    }
    FakeMemory(const FakeMemory&) = delete;
    FakeMemory& operator=(const FakeMemory&) = delete;
    ~FakeMemory() { ::munmap(base_, bytes_); }

    [[nodiscard]] u64 window() const { return reinterpret_cast<u64>(base_); }
    [[nodiscard]] u8* at(HostPhysical physical) const { return static_cast<u8*>(base_) + physical.raw(); }

  private:
    u64 bytes_;
    void* base_;
};

}  // namespace bulkhead
