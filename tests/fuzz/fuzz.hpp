// What the fuzz targets share: the input as a stream of decisions, and checks that end a run. A target is one
// file that defines fuzz_one(); libFuzzer calls it through LLVMFuzzerTestOneInput below. What a target does
// depends on its input alone, so that every finding can be repeated from its file.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "kernel/base/bits.hpp"
#include "kernel/base/bytes.hpp"
#include "kernel/base/format.hpp"
#include "kernel/base/types.hpp"

// A claim about the code under test.
#define MUST(condition)                                                             \
    do {                                                                            \
        if (!(condition)) ::bulkhead::fuzz::broken(#condition, __FILE__, __LINE__); \
    } while (false)

namespace bulkhead::fuzz {

[[noreturn]] inline void broken(const char* claim, const char* file, int line) {
    std::fprintf(stderr, "%s:%d: not so: %s\n", file, line, claim);
    std::abort();
}

// Decisions, front to back. Past its end an input says zero for ever, so that a target ends when empty().
class Input {
  public:
    Input(const u8* data, usize size) : left_(data, size) {}

    [[nodiscard]] bool empty() const { return left_.empty(); }
    [[nodiscard]] usize size() const { return left_.size(); }

    template <class T>
    T value() {
        T result{};
        const usize count = left_.size() < sizeof(T) ? left_.size() : sizeof(T);
        if (count != 0) std::memcpy(&result, left_.data(), count);
        left_ = left_.subspan(count);
        return result;
    }
    u8 byte() { return value<u8>(); }
    bool flag() { return (byte() & 1) != 0; }
    // 0 .. count - 1.
    u64 below(u64 count) { return (count <= 0x100 ? byte() : value<u32>()) % count; }
    // True `in_256` times of 256.
    bool rarely(unsigned in_256) { return byte() > 0xFF - in_256; }

    // A 64-bit number: small ones, powers of two and their neighbours, and addresses are frequent.
    u64 number() {
        const u8 kind = byte();
        switch (kind >> 5) {
            case 0: return kind & 0x1F;
            case 1: return byte();
            case 2: return value<u16>();
            case 3: return value<u32>();
            case 4: return bit(byte() & 63U) - (kind & 1) + (kind >> 1 & 1);
            case 5: return ~value<u16>() | ~u64{0xFFFF};
            case 6: return u64{value<u32>()} << 12;
            default: return value<u64>();
        }
    }

    // At most `count` bytes, in memory of exactly that size: whoever reads past them is caught.
    [[nodiscard]] std::string_view text(usize count) {
        const Bytes bytes = take(count);
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    [[nodiscard]] Bytes take(usize count) {
        if (count > left_.size()) count = left_.size();
        Piece& piece = keep(count);
        if (count != 0) std::memcpy(piece.bytes.get(), left_.data(), count);
        left_ = left_.subspan(count);
        return {piece.bytes.get(), count};
    }
    [[nodiscard]] Bytes rest() { return take(left_.size()); }

  private:
    struct Piece {
        std::unique_ptr<u8[]> bytes;
        std::unique_ptr<Piece> before;
    };
    Piece& keep(usize count) {
        auto piece = std::make_unique<Piece>();
        piece->bytes.reset(new u8[count]);
        piece->before = std::move(pieces_);
        pieces_ = std::move(piece);
        return *pieces_;
    }

    Bytes left_;
    std::unique_ptr<Piece> pieces_;
};

// Cheap numbers that follow from a seed: to fill memory, or to change what is read twice.
class Noise {
  public:
    explicit Noise(u64 seed) : state_(seed * 2 + 1) {}
    u64 next() {
        state_ = state_ * 6364136223846793005U + 1442695040888963407U;
        return state_ >> 29 ^ state_;
    }
    u8 byte() { return static_cast<u8>(next() >> 8); }

  private:
    u64 state_;
};

// Text as it would reach the operator.
struct TextSink final : Sink {
    std::string text;
    void write(std::string_view piece) override { text += piece; }
};

// One line for the operator, from strangers' words among others: nothing in it moves the cursor.
[[nodiscard]] inline bool is_plain(std::string_view text, bool lines = false) {
    for (const char c : text) {
        const auto byte = static_cast<u8>(c);
        if ((byte < 0x20 && !(lines && c == '\n')) || byte == 0x7F) return false;
    }
    return true;
}

}  // namespace bulkhead::fuzz

// Each target's.
void fuzz_one(bulkhead::fuzz::Input& in);

extern "C" inline __attribute__((used)) int LLVMFuzzerTestOneInput(const bulkhead::u8* data,
                                                                   bulkhead::usize size) {
    bulkhead::fuzz::Input in(data, size);
    fuzz_one(in);
    return 0;
}
