// JSON (RFC 8259), written as it comes, in ASCII only: it is safe to show on any terminal, and lossless for
// text that is valid UTF-8. A byte that is not becomes U+FFFD.
#pragma once

#include <string_view>

#include "kernel/base/format.hpp"

namespace bulkhead {

// The caller opens and closes in pairs, and gives each member of an object a key first. Depth: at most 64.
class JsonWriter {
  public:
    explicit JsonWriter(Sink& sink) : sink_(sink) {}

    void begin_object() { open('{'); }
    void end_object() { close('}'); }
    void begin_array() { open('['); }
    void end_array() { close(']'); }

    void key(std::string_view name);
    void text(std::string_view value);
    void number(u64 value);
    void boolean(bool value);
    void null();
    // A number with one decimal.
    void tenths(u64 value);
    // Nanoseconds, written as seconds with three decimals.
    void seconds(u64 nanoseconds);

    void text(std::string_view name, std::string_view value) { key(name), text(value); }
    void number(std::string_view name, u64 value) { key(name), number(value); }
    void tenths(std::string_view name, u64 value) { key(name), tenths(value); }
    void boolean(std::string_view name, bool value) { key(name), boolean(value); }
    void seconds(std::string_view name, u64 nanoseconds) { key(name), seconds(nanoseconds); }
    // A string from anything that can be printed.
    template <class T>
    void printed(std::string_view name, const T& value) {
        key(name);
        printed_value(value);
    }
    template <class T>
    void printed_value(const T& value) {
        separate();
        sink_.write("\"");
        EscapingSink escaping(sink_);
        print(escaping, "{}", value);
        sink_.write("\"");
    }

  private:
    // Each piece written to it must consist of whole characters.
    class EscapingSink final : public Sink {
      public:
        explicit EscapingSink(Sink& next) : next_(next) {}
        void write(std::string_view text) override;

      private:
        Sink& next_;
    };

    void separate();
    void open(char bracket);
    void close(char bracket);

    Sink& sink_;
    u64 has_members_ = 0;  // bit n: something stands before in the bracket n levels further in than the first
    unsigned depth_ = 0;
    bool after_key_ = false;
};

}  // namespace bulkhead
