// What a command has printed and the terminal has not taken yet. Ends lines the way terminals want it.
#pragma once

#include "kernel/base/format.hpp"

namespace bulkhead {

class OutputBuffer final : public Sink {
  public:
    static constexpr usize size = 32 * kib;

    explicit OutputBuffer(Sink& terminal) : terminal_(terminal) {}
    OutputBuffer(const OutputBuffer&) = delete;
    OutputBuffer& operator=(const OutputBuffer&) = delete;

    // Never loses anything: what does not fit pushes the oldest out to the terminal at once.
    void write(std::string_view text) override {
        for (const char c : text) {
            if (c == '\n') put('\r');
            put(c);
        }
    }

    [[nodiscard]] bool empty() const { return head_ == tail_; }
    void clear() { head_ = tail_; }

    // Passes on at most `count` bytes; returns how many.
    usize drain(usize count) {
        const u64 before = tail_;
        while (count > 0 && !empty()) {
            const usize start = tail_ % size;
            usize piece = head_ - tail_;
            if (piece > count) piece = count;
            if (piece > size - start) piece = size - start;
            terminal_.write({data_ + start, piece});
            tail_ += piece;
            count -= piece;
        }
        return tail_ - before;
    }

  private:
    void put(char c) {
        if (head_ - tail_ == size) drain(256);
        data_[head_++ % size] = c;
    }

    Sink& terminal_;
    char data_[size];
    u64 head_ = 0, tail_ = 0;
};

}  // namespace bulkhead
