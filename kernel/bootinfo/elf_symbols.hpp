// Names for addresses in backtraces, from a table that scripts/make_symbols.py makes of nm's output and a
// second link step puts into the image.
//
// The table, little-endian: u32 magic, u32 count, u64 base; count pairs of u32 {address - base, offset of the
// name}, ascending by address; then the names, each ended by a NUL. Offsets count from the table's start.
#pragma once

#include <optional>
#include <string_view>

#include "kernel/base/bytes.hpp"

namespace bulkhead {

class SymbolTable {
  public:
    static constexpr u32 magic = 0x4D595342;  // "BSYM"

    struct Symbol {
        std::string_view name;
        u64 offset = 0;  // of the address within it
    };

    constexpr SymbolTable() = default;  // knows nothing
    // A table that is malformed knows nothing.
    explicit SymbolTable(Bytes table);

    // The last symbol at or below `address`; nothing below the first, or more than 1 MiB beyond it.
    [[nodiscard]] std::optional<Symbol> find(HostVirtual address) const;
    [[nodiscard]] u32 count() const { return count_; }

  private:
    static constexpr u64 header_size = 16, entry_size = 8;
    [[nodiscard]] u32 word_at(u64 offset) const;

    Bytes table_{};
    u32 count_ = 0;
    u64 base_ = 0;
};

}  // namespace bulkhead
