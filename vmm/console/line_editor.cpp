#include "vmm/console/line_editor.hpp"

#include <algorithm>

namespace bulkhead {
namespace {

constexpr u8 control(char letter) {
    return static_cast<u8>(letter & 0x1F);
}

constexpr u8 escape_byte = 0x1B;

std::string_view after_last_blank(std::string_view text) {
    usize start = text.size();
    while (start > 0 && text[start - 1] != ' ') --start;
    text.remove_prefix(start);
    return text;
}

// What a stranger's word may look like to be offered.
bool is_plain_word(std::string_view word) {
    if (word.empty() || word.size() > 64) return false;
    return std::all_of(word.begin(), word.end(), [](char c) { return c > ' ' && c < 0x7F; });
}

// The longest beginning that all candidates have in common.
class CommonPrefix final : public CandidateSink {
  public:
    explicit CommonPrefix(std::string_view typed) : typed_(typed) {}
    void candidate(std::string_view word) override {
        if (!is_plain_word(word) || !word.starts_with(typed_)) return;
        if (count++ == 0) {
            prefix.append(word);
            return;
        }
        usize same = 0;
        while (same < prefix.size() && same < word.size() && prefix.view()[same] == word[same]) ++same;
        prefix.resize_down(same);
    }
    usize count = 0;
    FixedString<64> prefix;

  private:
    std::string_view typed_;
};

// Prints candidates side by side.
class CandidateList final : public CandidateSink {
  public:
    CandidateList(Sink& terminal, std::string_view typed) : terminal_(terminal), typed_(typed) {}
    void candidate(std::string_view word) override {
        if (!is_plain_word(word) || !word.starts_with(typed_)) return;
        if (column_ > 0 && column_ + 2 + word.size() >= LineEditor::columns) {
            terminal_.write("\r\n");
            column_ = 0;
        }
        if (column_ > 0) {
            terminal_.write("  ");
            column_ += 2;
        }
        terminal_.write(word);
        column_ += word.size();
    }

  private:
    Sink& terminal_;
    std::string_view typed_;
    usize column_ = 0;
};

}  // namespace

void LineEditor::start() {
    line_.clear();
    cursor_ = left_ = 0;
    recalled_ = 0;
    after_tab_ = false;
    refresh();
}

void LineEditor::hide() {
    terminal_.write("\r\x1b[K");
}

void LineEditor::show() {
    refresh();
}

// --- What the terminal sends ---

LineEditor::Event LineEditor::input(u8 byte) {
    const bool cancels = byte == control('X') || byte == control('Z');
    switch (state_) {
        case State::ground: return ground(byte);
        case State::string:
            // Not even Enter ends it: the text may be a report that a guest chose. Ctrl-C does, if a stray
            // Alt key began it.
            if (byte == '\a' || cancels || byte == control('C')) state_ = State::ground;
            if (byte == 0x9C) state_ = State::ground;
            if (byte == escape_byte) state_ = State::string_escape;
            return Event::none;
        case State::string_escape:
            state_ = byte == '\\' || byte == control('C') ? State::ground : State::string;
            return Event::none;
        default: break;
    }
    if (byte < 0x20 || byte >= 0x80) {
        // A control character breaks the sequence off and counts itself.
        state_ = State::ground;
        return cancels ? Event::none : ground(byte);
    }
    switch (state_) {
        case State::escape: escape(byte); break;
        case State::csi: csi(byte); break;
        case State::ss3:
            state_ = State::ground;
            final_key(byte);
            break;
        default: state_ = State::ground; break;
    }
    return Event::none;
}

LineEditor::Event LineEditor::ground(u8 byte) {
    if (continuation_ > 0 && (byte & 0xC0) == 0x80) {
        --continuation_;
        return Event::none;
    }
    continuation_ = 0;
    const bool second_tab = after_tab_ && byte == '\t';
    const bool second_end = after_return_ && byte == '\n';
    after_tab_ = false;
    after_return_ = byte == '\r';
    if (byte >= 0x20 && byte < 0x7F) {
        insert(static_cast<char>(byte));
        return Event::none;
    }
    switch (byte) {
        case '\r':
        case '\n':
            if (second_end) return Event::none;
            move(line_.size());
            terminal_.write("\r\n");
            remember();
            return Event::line;
        case control('C'):
            move(line_.size());
            terminal_.write("^C\r\n");
            line_.clear();
            return Event::cancelled;
        case '\t':
            if (second_tab) {
                list_candidates(line_.view().substr(0, cursor_));
            } else {
                complete();
            }
            break;
        case control('A'): move(0); break;
        case control('E'): move(line_.size()); break;
        case control('B'):
            if (cursor_ > 0) move(cursor_ - 1);
            break;
        case control('F'):
            if (cursor_ < line_.size()) move(cursor_ + 1);
            break;
        case control('H'):
        case 0x7F:
            if (cursor_ > 0) erase(cursor_ - 1, cursor_);
            break;
        case control('D'):
            if (cursor_ < line_.size()) erase(cursor_, cursor_ + 1);
            break;
        case control('K'): erase(cursor_, line_.size()); break;
        case control('U'): erase(0, cursor_); break;
        case control('W'): erase(word_left(), cursor_); break;
        case control('P'): recall(recalled_ + 1); break;
        case control('N'):
            if (recalled_ > 0) recall(recalled_ - 1);
            break;
        case control('L'):
            terminal_.write("\x1b[H\x1b[2J");
            refresh();
            break;
        case escape_byte: state_ = State::escape; break;
        // The same introducers in their 8-bit form.
        case 0x8F: state_ = State::ss3; break;
        case 0x9B:
            state_ = State::csi;
            parameter_ = modifier_ = 0;
            ignore_csi_ = false;
            break;
        case 0x90:
        case 0x98:
        case 0x9D:
        case 0x9E:
        case 0x9F: state_ = State::string; break;
        default:
            if (byte >= 0xC2 && byte <= 0xDF) continuation_ = 1;
            if (byte >= 0xE0 && byte <= 0xEF) continuation_ = 2;
            if (byte >= 0xF0 && byte <= 0xF4) continuation_ = 3;
            break;
    }
    return Event::none;
}

void LineEditor::escape(u8 byte) {
    state_ = State::ground;
    switch (byte) {
        case '[':
            state_ = State::csi;
            parameter_ = modifier_ = 0;
            ignore_csi_ = false;
            break;
        case 'O': state_ = State::ss3; break;
        case 'P':
        case 'X':
        case ']':
        case '^':
        case '_': state_ = State::string; break;
        case 'b': move(word_left()); break;   // Alt-B
        case 'f': move(word_right()); break;  // Alt-F
        default:
            // An intermediate character is followed by the final one.
            if (byte >= 0x20 && byte <= 0x2F) state_ = State::swallow;
            break;
    }
}

void LineEditor::csi(u8 byte) {
    if (byte >= '0' && byte <= '9') {
        modifier_ = std::min(modifier_ * 10 + (byte - '0'), 9999u);
    } else if (byte == ';') {
        parameter_ = parameter_ == 0 ? modifier_ : parameter_;
        modifier_ = 0;
    } else if (byte < 0x40) {
        ignore_csi_ = true;  // private or intermediate: a report
    } else if (byte == '[') {
        state_ = State::swallow;  // Linux console: ESC [ [ A is F1
    } else {
        state_ = State::ground;
        if (parameter_ == 0) {
            parameter_ = modifier_;
            modifier_ = 0;
        }
        if (!ignore_csi_) finish_csi(byte);
    }
}

void LineEditor::finish_csi(u8 final) {
    if (final != '~') {
        // Ctrl or Alt with a horizontal arrow, as xterm sends it: by words.
        if (modifier_ >= 3 && final == 'D') return move(word_left());
        if (modifier_ >= 3 && final == 'C') return move(word_right());
        return final_key(final);
    }
    switch (parameter_) {
        case 1:
        case 7: move(0); break;
        case 4:
        case 8: move(line_.size()); break;
        case 3:
            if (cursor_ < line_.size()) erase(cursor_, cursor_ + 1);
            break;
        default: break;
    }
}

void LineEditor::final_key(u8 final) {
    switch (final) {
        case 'A': recall(recalled_ + 1); break;
        case 'B':
            if (recalled_ > 0) recall(recalled_ - 1);
            break;
        case 'C':
            if (cursor_ < line_.size()) move(cursor_ + 1);
            break;
        case 'D':
            if (cursor_ > 0) move(cursor_ - 1);
            break;
        case 'H': move(0); break;
        case 'F': move(line_.size()); break;
        default: break;
    }
}

// --- The line ---

void LineEditor::insert(char c) {
    if (line_.size() == max_line) return beep();
    const usize tail = line_.size() - cursor_;
    // FixedString only grows at its end: append the tail again, shifted by one.
    FixedString<max_line> rest;
    rest.append({line_.view().data() + cursor_, tail});
    line_.resize_down(cursor_);
    line_.append({&c, 1});
    line_.append(rest);
    ++cursor_;
    if (tail == 0 && cursor_ - left_ < room()) {
        terminal_.write({&c, 1});
    } else {
        refresh();
    }
}

void LineEditor::erase(usize from, usize to) {
    if (from == to) return;
    FixedString<max_line> rest;
    rest.append({line_.view().data() + to, line_.size() - to});
    line_.resize_down(from);
    line_.append(rest);
    cursor_ = from;
    refresh();
}

void LineEditor::replace_line(std::string_view text) {
    line_.clear();
    line_.append(text);
    cursor_ = line_.size();
    left_ = 0;
    refresh();
}

void LineEditor::move(usize cursor) {
    if (cursor == cursor_) return;
    cursor_ = cursor;
    refresh();
}

usize LineEditor::word_left() const {
    const std::string_view text = line_;
    usize at = cursor_;
    while (at > 0 && text[at - 1] == ' ') --at;
    while (at > 0 && text[at - 1] != ' ') --at;
    return at;
}

usize LineEditor::word_right() const {
    const std::string_view text = line_;
    usize at = cursor_;
    while (at < text.size() && text[at] == ' ') ++at;
    while (at < text.size() && text[at] != ' ') ++at;
    return at;
}

// --- History ---

const FixedString<LineEditor::max_line>& LineEditor::past(usize back) const {
    return history_[(history_next_ + history_size - back) % history_size];
}

void LineEditor::remember() {
    const std::string_view text = line_;
    const bool blank = std::all_of(text.begin(), text.end(), [](char c) { return c == ' '; });
    if (blank || !remember_ || (history_count_ > 0 && past(1).view() == text)) return;
    history_[history_next_] = line_;
    history_next_ = (history_next_ + 1) % history_size;
    history_count_ = std::min(history_count_ + 1, history_size);
}

void LineEditor::recall(usize back) {
    if (back > history_count_) return beep();
    if (recalled_ == 0) unsent_ = line_;
    recalled_ = back;
    replace_line(back == 0 ? unsent_.view() : past(back).view());
}

// --- Completion ---

void LineEditor::complete() {
    const std::string_view text = line_.view().substr(0, cursor_);
    const std::string_view typed = after_last_blank(text);
    CommonPrefix common(typed);
    completer_.complete(text, common);
    after_tab_ = common.count != 1;
    if (common.count == 0) return beep();
    const usize typed_size = typed.size();
    for (usize i = typed_size; i < common.prefix.size(); ++i) insert(common.prefix.view()[i]);
    if (common.count == 1) {
        const bool blank_follows = cursor_ < line_.size() && line_.view()[cursor_] == ' ';
        if (!blank_follows) insert(' ');
    } else if (common.prefix.size() == typed_size) {
        beep();
    }
}

void LineEditor::list_candidates(std::string_view text) {
    terminal_.write("\r\n");
    CandidateList list(terminal_, after_last_blank(text));
    completer_.complete(text, list);
    terminal_.write("\r\n");
    refresh();
}

// --- The screen ---

// Keeps the cursor's column within the window, off the marks at its ends.
void LineEditor::scroll() {
    const bool fits = line_.size() < room();
    if (fits) {
        left_ = 0;
    } else if (left_ > 0 && cursor_ < left_ + 1) {
        left_ = cursor_ > room() / 2 ? cursor_ - room() / 2 : 0;
    } else if (cursor_ - left_ + 1 >= room()) {
        left_ = cursor_ - room() / 2;
    }
}

// Draws the row anew. The last column stays free: writing to it would arm the terminal's automatic wrap.
void LineEditor::refresh() {
    scroll();
    const std::string_view text = line_;
    const usize shown = std::min(text.size() - left_, room());
    const bool more_left = left_ > 0;
    const bool more_right = left_ + shown < text.size();
    terminal_.write("\r");
    terminal_.write(prompt_);
    if (more_left) terminal_.write("<");
    const usize from = left_ + (more_left ? 1 : 0);
    const usize to = left_ + shown - (more_right ? 1 : 0);
    if (to > from) terminal_.write({text.data() + from, to - from});
    if (more_right) terminal_.write(">");
    terminal_.write("\x1b[K");
    if (cursor_ < left_ + shown) print(terminal_, "\r\x1b[{}C", prompt_.size() + cursor_ - left_);
}

}  // namespace bulkhead
