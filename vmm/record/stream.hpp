// A record's bytes: numbers of as few bytes as they need, seven bits in each, the lowest first.
#pragma once

#include "kernel/base/bytes.hpp"

namespace bulkhead {

// What grew or shrank by little is a small number: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
[[nodiscard]] constexpr u64 fold_sign(u64 difference) {
    return difference << 1 ^ (has_bit(difference, 63) ? ~u64{0} : 0);
}
[[nodiscard]] constexpr u64 unfold_sign(u64 folded) {
    return folded >> 1 ^ ((folded & 1) != 0 ? ~u64{0} : 0);
}

class RecordWriter {
  public:
    static constexpr bool reads = false;

    explicit RecordWriter(MutableBytes storage) : storage_(storage) {}

    void byte(u8 value) {
        if (size_ == storage_.size()) {
            full_ = true;
            return;
        }
        storage_[size_++] = value;
    }
    void number(u64 value) {
        for (; value >= 0x80; value >>= 7) byte(static_cast<u8>(value | 0x80));
        byte(static_cast<u8>(value));
    }
    void bytes(Bytes values) {
        for (const u8 value : values) byte(value);
    }

    // Something did not fit since the last cut().
    [[nodiscard]] bool full() const { return full_; }
    [[nodiscard]] usize size() const { return size_; }
    // Forgets what was written from there on.
    void cut(usize size) {
        size_ = size;
        full_ = false;
    }

  private:
    MutableBytes storage_;
    usize size_ = 0;
    bool full_ = false;
};

// Past its end, and where a number is not one, a record is zeros, and no longer ok().
class RecordReader {
  public:
    static constexpr bool reads = true;

    explicit RecordReader(Bytes record) : record_(record) {}

    [[nodiscard]] bool ok() const { return ok_; }
    [[nodiscard]] bool at_end() const { return at_ == record_.size(); }
    [[nodiscard]] usize position() const { return at_; }
    // A value that the record must not have: nothing that follows means anything.
    void refuse() { ok_ = false; }

    [[nodiscard]] u8 byte() {
        if (!ok_ || at_ == record_.size()) {
            ok_ = false;
            return 0;
        }
        return record_[at_++];
    }
    [[nodiscard]] u64 number() {
        u64 value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const u8 next = byte();
            value |= u64{next & 0x7FU} << shift;
            if ((next & 0x80) == 0) return value;
        }
        ok_ = false;
        return 0;
    }

  private:
    Bytes record_;
    usize at_ = 0;
    bool ok_ = true;
};

}  // namespace bulkhead
