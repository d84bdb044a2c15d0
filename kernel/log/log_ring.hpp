// The last lines logged, in a ring of bytes: old lines make room for new ones.
#pragma once

#include <optional>
#include <span>

#include "kernel/base/bytes.hpp"
#include "kernel/base/fixed_string.hpp"

namespace bulkhead {

enum class LogLevel : u8 { error, warning, info, debug };

[[nodiscard]] std::string_view name_of(LogLevel level);

// "error", "warning", "info", "debug"; nothing for any other word.
[[nodiscard]] std::optional<LogLevel> parse_log_level(std::string_view word);

struct LogEntry {
    u64 sequence = 0;  // 0, 1, 2, ... without gaps, from the first line ever
    u64 microseconds = 0;
    LogLevel level = LogLevel::info;
    FixedString<200> text;  // printable ASCII
};

// Prints "[    1.234567] warning: text\n"; info lines go without a level.
void format_value(Sink& sink, const LogEntry& entry);

class LogRing {
  public:
    // `storage`: at least 1 KiB, and as long-lived as the ring; what is beyond a power of two is not used.
    explicit LogRing(MutableBytes storage);

    void append(u64 microseconds, LogLevel level, std::string_view text);

    // The oldest entry whose sequence number is at least `sequence`; nothing if there is none yet. For dmesg,
    // start at 0 and go on at entry.sequence + 1. Searching is bounded by the number of entries; iterating in
    // order is not repeated searching: the ring remembers where the last search ended.
    [[nodiscard]] bool read(u64 sequence, LogEntry& entry);

    [[nodiscard]] u64 next_sequence() const { return next_sequence_; }
    [[nodiscard]] u64 first_sequence() const { return first_sequence_; }

  private:
    struct Header {
        u64 microseconds;
        u16 length;
        u8 level;
        u8 reserved[5];
    };

    void copy_in(u64 position, Bytes bytes);
    void copy_out(u64 position, MutableBytes bytes) const;
    [[nodiscard]] Header header_at(u64 position) const;
    [[nodiscard]] static u64 record_size(u64 length) { return sizeof(Header) + length; }

    MutableBytes storage_;  // a power of two
    // Positions count all bytes ever written; the place is position modulo the size.
    u64 head_ = 0;
    u64 tail_ = 0;
    u64 first_sequence_ = 0;
    u64 next_sequence_ = 0;
    u64 cursor_position_ = 0;
    u64 cursor_sequence_ = 0;
};

}  // namespace bulkhead
