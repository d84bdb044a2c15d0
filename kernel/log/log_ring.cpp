#include "kernel/log/log_ring.hpp"

#include <bit>

namespace bulkhead {

std::string_view name_of(LogLevel level) {
    switch (level) {
        case LogLevel::error: return "error";
        case LogLevel::warning: return "warning";
        case LogLevel::info: return "info";
        case LogLevel::debug: return "debug";
    }
    return "?";
}

std::optional<LogLevel> parse_log_level(std::string_view word) {
    for (const LogLevel level : {LogLevel::error, LogLevel::warning, LogLevel::info, LogLevel::debug}) {
        if (word == name_of(level)) return level;
    }
    return std::nullopt;
}

void format_value(Sink& sink, const LogEntry& entry) {
    print(sink, "[{:5}.{:06}] ", entry.microseconds / 1'000'000, entry.microseconds % 1'000'000);
    if (entry.level != LogLevel::info) print(sink, "{}: ", name_of(entry.level));
    print(sink, "{}\n", entry.text.view());
}

LogRing::LogRing(MutableBytes storage)
    : storage_(storage.first(storage.empty() ? 0 : std::bit_floor(storage.size()))) {}

void LogRing::copy_in(u64 position, Bytes bytes) {
    for (usize i = 0; i < bytes.size(); ++i) storage_[(position + i) & (storage_.size() - 1)] = bytes[i];
}

void LogRing::copy_out(u64 position, MutableBytes bytes) const {
    for (usize i = 0; i < bytes.size(); ++i) bytes[i] = storage_[(position + i) & (storage_.size() - 1)];
}

LogRing::Header LogRing::header_at(u64 position) const {
    u8 bytes[sizeof(Header)];
    copy_out(position, bytes);
    Header header;
    std::memcpy(&header, bytes, sizeof header);
    return header;
}

void LogRing::append(u64 microseconds, LogLevel level, std::string_view text) {
    constexpr usize longest = decltype(LogEntry::text)::capacity();
    if (text.size() > longest) text = text.substr(0, longest);
    const u64 size = record_size(text.size());
    if (size > storage_.size()) return;
    while (head_ + size - tail_ > storage_.size()) {
        tail_ += record_size(header_at(tail_).length);
        ++first_sequence_;
    }
    if (cursor_sequence_ < first_sequence_) {
        cursor_sequence_ = first_sequence_;
        cursor_position_ = tail_;
    }
    const Header header{.microseconds = microseconds,
                        .length = static_cast<u16>(text.size()),
                        .level = static_cast<u8>(level),
                        .reserved = {}};
    u8 bytes[sizeof header];
    std::memcpy(bytes, &header, sizeof header);
    copy_in(head_, bytes);
    copy_in(head_ + sizeof header, {reinterpret_cast<const u8*>(text.data()), text.size()});
    head_ += size;
    ++next_sequence_;
}

bool LogRing::read(u64 sequence, LogEntry& entry) {
    if (sequence < first_sequence_) sequence = first_sequence_;
    if (sequence >= next_sequence_) return false;
    if (sequence < cursor_sequence_) {
        cursor_sequence_ = first_sequence_;
        cursor_position_ = tail_;
    }
    Header header = header_at(cursor_position_);
    while (cursor_sequence_ < sequence) {
        cursor_position_ += record_size(header.length);
        ++cursor_sequence_;
        header = header_at(cursor_position_);
    }
    char text[decltype(LogEntry::text)::capacity()];
    copy_out(cursor_position_ + sizeof header, {reinterpret_cast<u8*>(text), header.length});
    entry.sequence = sequence;
    entry.microseconds = header.microseconds;
    entry.level = static_cast<LogLevel>(header.level);
    entry.text.clear();
    entry.text.append({text, header.length});
    return true;
}

}  // namespace bulkhead
