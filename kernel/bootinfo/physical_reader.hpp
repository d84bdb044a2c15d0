// How boot-provided structures are read: by physical address, checked. Addresses and lengths come from the
// boot loader and the firmware and are not trusted.
#pragma once

#include <optional>

#include "kernel/base/bytes.hpp"

namespace bulkhead {

class PhysicalReader {
  public:
    // What the parsers ask for at most at a time.
    static constexpr u64 max_length = 1 * mib;

    // The bytes [start, start + length), or nothing where that is not memory that may be read. Valid until
    // the next call: an implementation may have only one window to show memory through.
    [[nodiscard]] virtual std::optional<Bytes> read(HostPhysical start, u64 length) = 0;

  protected:
    ~PhysicalReader() = default;
};

}  // namespace bulkhead
