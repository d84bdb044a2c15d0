#include "vmm/console/command_line.hpp"

namespace bulkhead {
namespace {

bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

}  // namespace

Result<> CommandLine::parse(std::string_view line) {
    words_.clear();
    options_.clear();
    places_.clear();
    auto result = split(line);
    if (!result) {
        words_.clear();
        options_.clear();
        places_.clear();
    }
    return result;
}

// Unquoting never makes the text longer, so that text_ has room for all of it.
Result<> CommandLine::split(std::string_view line) {
    if (line.size() > max_length) {
        return fail("the line has {} characters; at most {} are taken", line.size(), max_length);
    }
    usize used = 0;
    usize at = 0;
    bool options_end = false;
    while (true) {
        while (at < line.size() && is_blank(line[at])) ++at;
        if (at == line.size()) return {};
        const usize start = used;
        bool quoted = false;
        char quote = 0;
        for (; at < line.size() && (quote != 0 || !is_blank(line[at])); ++at) {
            const char c = line[at];
            if (quote != 0 && c == quote) {
                quote = 0;
            } else if (quote == 0 && (c == '"' || c == '\'')) {
                quote = c;
                quoted = true;
            } else if (c == '\\' && quote != '\'') {
                const char next = at + 1 < line.size() ? line[at + 1] : '\0';
                const bool escapes = quote == 0 ? next != '\0' : next == '"' || next == '\\';
                if (escapes) ++at;
                text_[used++] = line[at];
            } else {
                text_[used++] = c;
            }
        }
        if (quote != 0) return fail("a {} is not closed; add another one", quote);
        const std::string_view word(text_ + start, used - start);
        if (!quoted && !options_end && word == "--") {
            options_end = true;
        } else if (!quoted && !options_end && word.starts_with("--")) {
            if (!options_.push_back(word))
                return fail("more than {} options; give fewer", options_.capacity());
            (void)places_.push_back(static_cast<u8>(words_.size()));
        } else if (!words_.push_back(word)) {
            return fail("more than {} words; use quotes to keep words together", max_words);
        }
    }
}

bool CommandLine::has_option(std::string_view name) const {
    for (const std::string_view option : options_) {
        if (option == name) return true;
    }
    return false;
}

std::optional<std::string_view> CommandLine::take_value(std::string_view name) {
    for (usize i = 0; i < options_.size(); ++i) {
        const std::string_view option = options_[i];
        if (!option.starts_with(name)) continue;
        if (option.size() > name.size()) {
            if (option[name.size()] != '=') continue;
            std::string_view value = option;
            value.remove_prefix(name.size() + 1);
            return value;
        }
        const usize place = places_[i];
        if (place >= words_.size()) return std::string_view();
        const std::string_view value = words_[place];
        words_.erase(place);
        for (u8& each : places_) {
            if (each > place) --each;
        }
        return value;
    }
    return std::nullopt;
}

bool CommandLine::take_flag(std::string_view name) {
    for (usize i = words_.size(); i-- > 1;) {
        if (words_[i] != name) continue;
        if (!options_.push_back(words_[i])) return false;
        (void)places_.push_back(static_cast<u8>(i));
        words_.erase(i);
        for (u8& each : places_) {
            if (each > i) --each;
        }
    }
    return true;
}

}  // namespace bulkhead
