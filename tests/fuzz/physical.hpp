// Physical memory as a hostile boot loader leaves it: a few pieces, each read in a copy of its own that is
// gone with the next read. If the input says so, bytes change between two reads, and reads fail.
#pragma once

#include <vector>

#include "kernel/bootinfo/physical_reader.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace bulkhead::fuzz {

class Physical final : public PhysicalReader {
  public:
    explicit Physical(Input& in) : mode_(in.byte()), noise_(mode_) {}

    void add(u64 address, std::vector<u8> bytes) {
        const usize size = bytes.size();
        pieces_.push_back({address, std::move(bytes), std::vector<bool>(changes() ? size : 0)});
    }

    std::optional<Bytes> read(HostPhysical start, u64 length) override {
        MUST(++reads_ < 2000);
        window_.reset();
        if (length > max_length || ((mode_ & 3) == 3 && noise_.byte() < 16)) return std::nullopt;
        for (Piece& piece : pieces_) {
            if (start.raw() < piece.address) continue;
            const u64 offset = start.raw() - piece.address;
            if (!range_within(offset, length, piece.bytes.size())) continue;
            window_.reset(new u8[length]);
            if (length != 0) std::memcpy(window_.get(), piece.bytes.data() + offset, length);
            for (u64 i = 0; changes() && i < length; ++i) window_[i] = fetch(piece, offset + i);
            return Bytes(window_.get(), length);
        }
        return std::nullopt;
    }

  private:
    struct Piece {
        u64 address;
        std::vector<u8> bytes;
        std::vector<bool> seen;
    };
    [[nodiscard]] bool changes() const { return (mode_ & 3) == 2; }
    u8 fetch(Piece& piece, u64 at) {
        const bool again = piece.seen[at];
        piece.seen[at] = true;
        // Not each byte changes, or no signature would be found twice.
        return again && noise_.byte() < 32 ? noise_.byte() : piece.bytes[at];
    }

    u8 mode_;
    Noise noise_;
    std::vector<Piece> pieces_;
    std::unique_ptr<u8[]> window_;
    unsigned reads_ = 0;
};

}  // namespace bulkhead::fuzz
