// The hypervisor's log: lines with a level and a time, kept in a ring for dmesg and passed on to sinks
// (serial line, screen). A line is one line: whatever is not printable ASCII becomes '?', so that text a
// guest has a say in cannot drive a terminal or forge a prompt.
#pragma once

#include "kernel/base/fixed_vector.hpp"
#include "kernel/log/log_ring.hpp"
#include "kernel/sync/lock.hpp"

namespace bulkhead {

class MicrosecondClock {
  public:
    [[nodiscard]] virtual u64 microseconds() const = 0;  // since boot; never goes back

  protected:
    ~MicrosecondClock() = default;
};

class Logger {
  public:
    static constexpr usize max_sinks = 4;

    Logger(LogRing& ring, const MicrosecondClock& clock, InterruptFlag& interrupts)
        : ring_(ring), clock_(clock), interrupts_(interrupts) {}
    Logger(const Logger&) = delete;
    Logger& operator=(const Logger&) = delete;

    // Lines of `level` and more urgent ones go to `sink`, beginning with what is in the ring already. The
    // sink is called with the logger's lock held and must not log. False when there are max_sinks.
    [[nodiscard]] bool add_sink(Sink& sink, LogLevel level);
    void remove_sink(Sink& sink);
    void set_level(Sink& sink, LogLevel level);

    // While deferred, lines only enter the ring; drain() passes them on. A core that runs a guest never waits
    // for the serial line then.
    void set_deferred(bool deferred) { deferred_ = deferred; }
    // Passes up to `lines` lines to each sink that lags. True if some still lags.
    bool drain(u32 lines = 8);

    template <class... Arguments>
    void write(LogLevel level, FormatString<std::type_identity_t<Arguments>...> format,
               const Arguments&... arguments) {
        FixedString<200> text;
        print(text, format, arguments...);
        submit(level, text);
    }
    template <class... Arguments>
    void error(FormatString<std::type_identity_t<Arguments>...> format, const Arguments&... arguments) {
        write(LogLevel::error, format, arguments...);
    }
    template <class... Arguments>
    void warning(FormatString<std::type_identity_t<Arguments>...> format, const Arguments&... arguments) {
        write(LogLevel::warning, format, arguments...);
    }
    template <class... Arguments>
    void info(FormatString<std::type_identity_t<Arguments>...> format, const Arguments&... arguments) {
        write(LogLevel::info, format, arguments...);
    }
    template <class... Arguments>
    void debug(FormatString<std::type_identity_t<Arguments>...> format, const Arguments&... arguments) {
        write(LogLevel::debug, format, arguments...);
    }

    // From here on nobody waits for the lock, and nothing is deferred: the one core that is left reports a
    // panic.
    void enter_panic();

    // Entry `sequence` or the oldest after it; see LogRing::read().
    [[nodiscard]] bool read(u64 sequence, LogEntry& entry);

  private:
    struct Output {
        Sink* sink = nullptr;
        LogLevel level = LogLevel::info;
        u64 next = 0;
    };
    class Guard;

    void submit(LogLevel level, std::string_view text);
    bool pass_on(u32 lines);

    LogRing& ring_;
    const MicrosecondClock& clock_;
    InterruptFlag& interrupts_;
    TicketLock lock_;
    FixedVector<Output, max_sinks> outputs_;
    bool deferred_ = false;
    bool panicking_ = false;
};

}  // namespace bulkhead
