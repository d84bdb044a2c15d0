// Editing of one line on a VT100-like terminal of 80 columns, with history and completion.
//
// Keys: arrows, Home, End, Delete, Backspace; Ctrl-A E B F P N (move), Ctrl-K U W (kill to the end, to the
// beginning, a word), Ctrl-D (delete), Ctrl-L (redraw the screen), Ctrl-C (drop the line), Tab (complete,
// twice: list). A line too long for the screen scrolls sideways; < and > mark what is hidden.
//
// Whatever else a terminal sends is ignored: other escape sequences, reports a guest may have provoked (also
// their text), UTF-8, garbage. The line holds printable ASCII only.
#pragma once

#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/format.hpp"

namespace bulkhead {

class CandidateSink {
  public:
    virtual void candidate(std::string_view word) = 0;

  protected:
    ~CandidateSink() = default;
};

class Completer {
  public:
    // Names every word that could stand in place of the unfinished last word of `text`, which is what follows
    // its last blank.
    virtual void complete(std::string_view text, CandidateSink& candidates) = 0;

  protected:
    ~Completer() = default;
};

// About 18 KiB, most of it history.
class LineEditor {
  public:
    static constexpr usize max_line = 511;
    static constexpr usize history_size = 32;
    static constexpr usize columns = 80;

    enum class Event : u8 {
        none,
        line,       // Enter: line() is complete
        cancelled,  // Ctrl-C: the line is gone
    };

    // `prompt`: printable ASCII, shorter than 40; as long-lived as the editor.
    LineEditor(Sink& terminal, std::string_view prompt, Completer& completer)
        : terminal_(terminal), prompt_(prompt), completer_(completer) {}
    LineEditor(const LineEditor&) = delete;
    LineEditor& operator=(const LineEditor&) = delete;

    // Shows the prompt with an empty line.
    void start();
    // What start() shows from now on; without `remember`, lines do not enter the history.
    void set_prompt(std::string_view prompt, bool remember = true) {
        prompt_ = prompt;
        remember_ = remember;
    }
    // A byte from the terminal. After `line` or `cancelled` the cursor is at the beginning of a new row, and
    // nothing is drawn until start().
    [[nodiscard]] Event input(u8 byte);
    [[nodiscard]] std::string_view line() const { return line_; }

    // Makes room for other output and comes back. Between the two the cursor is in the first column.
    void hide();
    void show();

  private:
    enum class State : u8 {
        ground,
        escape,         // after ESC
        csi,            // after ESC [ or 9Bh
        ss3,            // after ESC O or 8Fh
        swallow,        // the next byte belongs to a sequence that is ignored
        string,         // in an OSC, DCS, SOS, PM or APC: ignored up to its end
        string_escape,  // there, after ESC
    };

    [[nodiscard]] Event ground(u8 byte);
    void escape(u8 byte);
    void csi(u8 byte);
    void finish_csi(u8 final);
    void final_key(u8 final);

    void insert(char c);
    void erase(usize from, usize to);
    void replace_line(std::string_view text);
    void move(usize cursor);
    [[nodiscard]] usize word_left() const;
    [[nodiscard]] usize word_right() const;

    void remember();
    void recall(usize back);
    [[nodiscard]] const FixedString<max_line>& past(usize back) const;

    void complete();
    void list_candidates(std::string_view text);

    void scroll();
    void refresh();
    void beep() { terminal_.write("\a"); }
    [[nodiscard]] usize room() const { return columns - 1 - prompt_.size(); }

    Sink& terminal_;
    std::string_view prompt_;
    Completer& completer_;

    FixedString<max_line> line_;
    usize cursor_ = 0;
    usize left_ = 0;  // the first character on the screen

    State state_ = State::ground;
    unsigned parameter_ = 0;     // of a control sequence: the first ...
    unsigned modifier_ = 0;      // ... and the last one
    bool ignore_csi_ = false;    // it has what no key sends
    u8 continuation_ = 0;        // bytes of a UTF-8 character still to come
    bool after_return_ = false;  // a line feed now belongs to the carriage return before
    bool after_tab_ = false;
    bool remember_ = true;

    FixedString<max_line> history_[history_size];
    usize history_next_ = 0;
    usize history_count_ = 0;
    usize recalled_ = 0;            // how far back; 0: the line being written
    FixedString<max_line> unsent_;  // the line being written, while older ones are looked at
};

}  // namespace bulkhead
