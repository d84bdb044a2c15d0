#include "kernel/log/logger.hpp"

namespace bulkhead {
namespace {

// A panicking core, or an NMI handler that came between, must get its line out though the holder never lets
// go.
constexpr u32 panic_attempts = 100'000;

}  // namespace

// Holds the lock with interrupts off. In a panic it waits a bounded time and goes on without.
class [[nodiscard]] Logger::Guard {
  public:
    explicit Guard(Logger& logger) : logger_(logger), enabled_(logger.interrupts_.disable()) {
        if (!logger_.panicking_) {
            logger_.lock_.lock();
            locked_ = true;
        } else {
            locked_ = logger_.lock_.try_lock_for(panic_attempts);
        }
    }
    ~Guard() {
        if (locked_) logger_.lock_.unlock();
        logger_.interrupts_.restore(enabled_);
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

  private:
    Logger& logger_;
    bool enabled_;
    bool locked_ = false;
};

bool Logger::add_sink(Sink& sink, LogLevel level) {
    Guard guard(*this);
    if (!outputs_.push_back({.sink = &sink, .level = level, .next = ring_.first_sequence()})) return false;
    if (!deferred_) pass_on(~u32{0});
    return true;
}

void Logger::remove_sink(Sink& sink) {
    Guard guard(*this);
    for (usize i = outputs_.size(); i-- > 0;) {
        if (outputs_[i].sink == &sink) outputs_.erase(i);
    }
}

void Logger::set_level(Sink& sink, LogLevel level) {
    Guard guard(*this);
    for (Output& output : outputs_) {
        if (output.sink == &sink) output.level = level;
    }
}

bool Logger::drain(u32 lines) {
    Guard guard(*this);
    return pass_on(lines);
}

// Each sink goes by its own place in the ring; what was overwritten before it came by is reported as lost.
bool Logger::pass_on(u32 lines) {
    bool lagging = false;
    LogEntry entry;
    for (Output& output : outputs_) {
        for (u32 i = 0; i < lines && ring_.read(output.next, entry); ++i) {
            if (entry.sequence > output.next) {
                print(*output.sink, "[log] {} lines lost\n", entry.sequence - output.next);
            }
            output.next = entry.sequence + 1;
            if (entry.level <= output.level) format_value(*output.sink, entry);
        }
        lagging = lagging || output.next < ring_.next_sequence();
    }
    return lagging;
}

void Logger::submit(LogLevel level, std::string_view text) {
    FixedString<200> clean;
    for (const char c : text) {
        const char shown = c >= ' ' && c <= '~' ? c : '?';
        clean.append({&shown, 1});
    }
    Guard guard(*this);
    ring_.append(clock_.microseconds(), level, clean);
    if (!deferred_) pass_on(~u32{0});
}

void Logger::enter_panic() {
    panicking_ = true;
    deferred_ = false;
}

bool Logger::read(u64 sequence, LogEntry& entry) {
    Guard guard(*this);
    return ring_.read(sequence, entry);
}

}  // namespace bulkhead
