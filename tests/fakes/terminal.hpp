// A small VT100: what a person would see after some output. Knows what a shell-like program uses; sequences
// that it does not know are consumed and counted.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/format.hpp"

namespace bulkhead {

class Terminal final : public Sink {
  public:
    static constexpr int columns = 80;
    static constexpr int rows = 24;

    Terminal() { normal_.assign(rows, std::string(columns, ' ')); }

    void write(std::string_view text) override {
        for (const char c : text) put(c);
    }

    // A row without its trailing blanks.
    [[nodiscard]] std::string row(int index) const {
        std::string text = screen()[static_cast<size_t>(index)];
        text.erase(text.find_last_not_of(' ') + 1);
        return text;
    }
    // The row with the cursor, which is shown as '|' before the character it is on.
    [[nodiscard]] std::string cursor_row() const {
        std::string text = screen()[static_cast<size_t>(y)];
        const size_t end = text.find_last_not_of(' ') + 1;
        text.erase(std::max(end, static_cast<size_t>(x)));
        text.insert(static_cast<size_t>(x), "|");
        return text;
    }
    // All rows down to the last one that is not empty.
    [[nodiscard]] std::string text() const {
        std::string all;
        size_t kept = 0;
        for (int i = 0; i < rows; ++i) {
            all += row(i) + "\n";
            if (!row(i).empty()) kept = all.size();
        }
        return all.substr(0, kept);
    }

    int x = 0;
    int y = 0;
    int bells = 0;
    int unknown = 0;
    bool wrapped = false;  // a line ran into the next row
    bool cursor_visible = true;
    bool alternate = false;
    bool plain = true;  // no attributes
    bool ascii = true;  // no line-drawing characters
    bool insertion = false;
    bool locked = false;
    bool mouse = false;
    int top = 0;
    int bottom = rows - 1;

  private:
    std::vector<std::string>& screen() { return alternate ? alternate_ : normal_; }
    [[nodiscard]] const std::vector<std::string>& screen() const { return alternate ? alternate_ : normal_; }

    void put(char c) {
        const unsigned char byte = static_cast<unsigned char>(c);
        if (byte == 0x18 || byte == 0x1A) {
            sequence_.clear();
            return;
        }
        if (!sequence_.empty()) {
            const bool string = sequence_.size() > 1 && (sequence_[1] == ']' || sequence_[1] == 'P');
            if (byte == 0x1B && !string) {
                sequence_ = c;
                return;
            }
            sequence_ += c;
            if (string) {
                if (byte == 7 || sequence_.ends_with("\x1b\\")) sequence_.clear();
                return;
            }
            if (complete()) {
                const std::string sequence = sequence_;
                sequence_.clear();
                escape(sequence);
            }
            return;
        }
        switch (byte) {
            case 0x1B: sequence_ = c; return;
            case '\r':
                x = 0;
                pending_ = false;
                return;
            case '\n': line_feed(); return;
            case '\b':
                if (x > 0) --x;
                return;
            case '\a': ++bells; return;
            case 0x0E: ascii = false; return;
            case 0x0F: ascii = true; return;
            default: break;
        }
        if (byte < 0x20) return;
        if (pending_) {
            wrapped = true;
            x = 0;
            line_feed();
        }
        screen()[static_cast<size_t>(y)][static_cast<size_t>(x)] = c;
        if (x == columns - 1) {
            pending_ = true;
        } else {
            ++x;
        }
    }
    void line_feed() {
        pending_ = false;
        if (y != bottom) {
            if (y < rows - 1) ++y;
            return;
        }
        auto& lines = screen();
        lines.erase(lines.begin() + top);
        lines.insert(lines.begin() + bottom, std::string(columns, ' '));
    }
    [[nodiscard]] bool complete() const {
        if (sequence_.size() < 2) return false;
        const char kind = sequence_[1];
        const char last = sequence_.back();
        if (kind == '[') return sequence_.size() > 2 && last >= 0x40 && last <= 0x7E;
        if (kind == ']' || kind == 'P') return false;
        if (kind >= 0x20 && kind <= 0x2F) return sequence_.size() > 2;
        return true;
    }
    void escape(const std::string& sequence) {
        pending_ = false;
        const std::string body = sequence.substr(1);
        if (body[0] != '[') {
            if (body == "(0") ascii = false;
            if (body == "(B") ascii = true;
            return;
        }
        const char final = body.back();
        const std::string parameters = body.substr(1, body.size() - 2);
        const int first = std::max(1, std::atoi(parameters.c_str()));
        const size_t semicolon = parameters.find(';');
        const int second =
            semicolon == std::string::npos ? 1 : std::max(1, std::atoi(parameters.c_str() + semicolon + 1));
        if (!parameters.empty() && parameters[0] == '?') {
            const bool on = final == 'h';
            const std::string mode = parameters.substr(1);
            if (mode == "25") cursor_visible = on;
            if (mode == "1000") mouse = on;
            if (mode == "47" || mode == "1047" || mode == "1049") {
                if (on && !alternate) alternate_.assign(rows, std::string(columns, ' '));
                alternate = on;
            }
            return;
        }
        switch (final) {
            case 'A': y = std::max(0, y - first); break;
            case 'B': y = std::min(rows - 1, y + first); break;
            case 'C': x = std::min(columns - 1, x + first); break;
            case 'D': x = std::max(0, x - first); break;
            case 'H':
                y = std::min(rows, first) - 1;
                x = std::min(columns, second) - 1;
                break;
            case 'J': screen().assign(rows, std::string(columns, ' ')); break;
            case 'K':
                for (int i = x; i < columns; ++i)
                    screen()[static_cast<size_t>(y)][static_cast<size_t>(i)] = ' ';
                break;
            case 'm': plain = parameters.empty() || parameters == "0"; break;
            case 'r':
                top = parameters.empty() ? 0 : first - 1;
                bottom = parameters.empty() ? rows - 1 : second - 1;
                x = y = 0;
                break;
            case 'h':
            case 'l':
                if (parameters == "4") insertion = final == 'h';
                if (parameters == "2") locked = final == 'h';
                break;
            default: ++unknown; break;
        }
    }

    std::vector<std::string> normal_;
    std::vector<std::string> alternate_;
    std::string sequence_;
    bool pending_ = false;  // the next character wraps
};

}  // namespace bulkhead
