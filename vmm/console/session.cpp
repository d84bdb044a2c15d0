#include "vmm/console/session.hpp"

#include "kernel/base/filtered.hpp"

namespace bulkhead {
namespace {

// Undoes what a guest may have done to a VT100 or xterm. The references are DEC's VT520 programmer
// information and xterm's "Control Sequences"; a terminal ignores what it does not know.
constexpr std::string_view terminal_reset =
    "\x18"                                          // CAN: breaks off a sequence that was begun
    "\x1b\\"                                        // ST: ends a string that was begun
    "\x1b F"                                        // 7-bit controls in reports
    "\x1b[2l\x1b[4l\x1b[20l"                        // keyboard unlocked, no insertion, Enter sends CR
    "\x1b[!p"                                       // DECSTR: soft reset
    "\x1b[?1l\x1b>"                                 // normal cursor keys and keypad
    "\x1b[?5l\x1b[?6l\x1b[?7h"                      // no reverse screen, absolute origin, wrap
    "\x1b[?69l"                                     // no left and right margins
    "\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l"     // no mouse reports ...
    "\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l"  // ... of any kind
    "\x1b[?2004l"                                   // no marks around pasted text
    "\x1b[?1047l\x1b[?47l"                          // the normal screen
    "\x1b(B\x1b)B\x0f"                              // ASCII
    "\x1b[0m\x1b[?25h"                              // plain, with a cursor
    "\x1b[r\x1b[999;1H";                            // scroll the whole screen; go to its last row

}  // namespace

// --- At the prompt ---

void Session::start() {
    mode_ = Mode::prompt;
    show_prompt();
}

void Session::show_prompt() {
    editing_ = true;
    editor_.set_prompt(mode_ == Mode::text ? text_prompt : prompt, mode_ != Mode::text);
    editor_.start();
}

void Session::input(u8 byte) {
    if (swallows(byte)) return;
    if (attached_) {
        if (byte == escape_) {
            detach();
        } else {
            send(*attached_, byte);
        }
        return;
    }
    if (mode_ != Mode::command) return edit(byte);
    if (byte == 0x03 || interpreter_.live()) return break_off(byte);
    (void)type_ahead_.push_back(byte);
}

// The rest of an arrow key, say, whose first byte has ended a command.
bool Session::swallows(u8 byte) {
    switch (swallow_) {
        case Swallow::nothing: return false;
        case Swallow::escape:
            swallow_ = byte == '[' || byte == 'O' ? Swallow::sequence : Swallow::nothing;
            return swallow_ != Swallow::nothing;
        case Swallow::sequence:
            if (byte >= 0x40 && byte <= 0x7E) swallow_ = Swallow::nothing;
            // A control character is in no sequence.
            if (byte < 0x20) {
                swallow_ = Swallow::nothing;
                return false;
            }
            return true;
    }
    return false;
}

void Session::edit(u8 byte) {
    switch (editor_.input(byte)) {
        case LineEditor::Event::none: return;
        case LineEditor::Event::cancelled:
            editing_ = false;
            interpreter_.cancel();
            mode_ = Mode::command;
            finish_command();
            return;
        case LineEditor::Event::line: break;
    }
    editing_ = false;
    if (mode_ == Mode::text) {
        if (interpreter_.give_text(editor_.line())) {
            mode_ = Mode::command;
        } else {
            show_prompt();
        }
        return;
    }
    mode_ = Mode::command;
    interpreter_.begin(editor_.line(), output_);
}

// --- A command runs ---

void Session::break_off(u8 byte) {
    if (stepping_) return;
    const bool live = interpreter_.live();
    if (live && byte == 0x1B) swallow_ = Swallow::escape;
    interpreter_.cancel();
    if (!live) {
        output_.clear();
        type_ahead_.clear();
        terminal_.write("^C\r\n");
    } else {
        // What is on its way is whole lines.
        (void)output_.drain(OutputBuffer::size);
    }
    finish_command();
}

// Output, then a step of the command, then the prompt.
bool Session::step_command() {
    // What a command does may make the caller poll: for messages that come of it.
    if (stepping_) return false;
    const usize room = output_bytes - output_.drain(output_bytes);
    if (!output_.empty()) return true;
    stepping_ = true;
    const auto progress = interpreter_.step();
    stepping_ = false;
    using enum CommandInterpreter::Progress;
    switch (progress) {
        case more: return true;
        case waiting:
            // Keys typed before it was known that any would end it.
            if (interpreter_.live() && !type_ahead_.empty()) {
                const u8 byte = type_ahead_[0];
                type_ahead_.erase(0);
                break_off(byte);
                return true;
            }
            return !output_.empty();
        case text:
            (void)output_.drain(OutputBuffer::size);
            mode_ = Mode::text;
            show_prompt();
            break;
        case done:
            // A short answer is shown at once.
            (void)output_.drain(room);
            if (!output_.empty()) return true;
            finish_command();
            return attached_ || mode_ == Mode::command;
    }
    while (mode_ == Mode::text && !type_ahead_.empty()) {
        const u8 byte = type_ahead_[0];
        type_ahead_.erase(0);
        edit(byte);
    }
    return true;
}

void Session::finish_command() {
    if (!held_back_.empty()) terminal_.write(held_back_);
    if (messages_lost_ > 0) print(terminal_, "({} more messages: see dmesg)\r\n", messages_lost_);
    held_back_.clear();
    messages_lost_ = 0;
    if (const auto vm = interpreter_.attach()) {
        mode_ = Mode::prompt;
        attach(*vm, interpreter_.attach_lines());
        if (attached_) {
            // What was typed ahead is for the VM.
            for (const u8 byte : type_ahead_) send(*vm, byte);
            type_ahead_.clear();
            return;
        }
    }
    start();
    while (mode_ == Mode::prompt && !attached_ && !type_ahead_.empty()) {
        const u8 byte = type_ahead_[0];
        type_ahead_.erase(0);
        edit(byte);
    }
}

bool Session::poll() {
    if (attached_) return poll_attached();
    return mode_ == Mode::command && step_command();
}

// --- Attached ---

void Session::attach(VmId vm, std::optional<u64> lines) {
    VmDetails details;
    const bool known = management_.details(vm, details);
    ConsoleRing* ring = management_.console(vm);
    if (ring == nullptr || mode_ == Mode::command) return;
    if (editing_) editor_.hide();
    editing_ = false;
    attached_name_.clear();
    if (known) attached_name_.append(details.summary.name);
    ring->rewind();
    if (lines) ring->rewind_to(begin_of_last_lines(*ring, *lines));
    pending_.clear();
    overflow_noted_ = false;
    dropped_noted_ = 0;
    attached_ = vm;
    print(terminal_, "attached to {}; {} leaves\r\n", Filtered(attached_name_), name_of_key(escape_).view());
}

void Session::detach() {
    if (!attached_) return;
    attached_.reset();
    pending_.clear();
    terminal_.write(terminal_reset);
    print(terminal_, "\r\nleft the console of {}\r\n", Filtered(attached_name_));
    start();
}

void Session::send(VmId vm, u8 byte) {
    flush_pending(vm);
    if (pending_.empty() && management_.send_input(vm, byte)) {
        overflow_noted_ = false;
        return;
    }
    if (pending_.push_back(byte) || overflow_noted_) return;
    overflow_noted_ = true;
    note("input is dropped: the VM does not read it");
}

void Session::flush_pending(VmId vm) {
    usize sent = 0;
    while (sent < pending_.size() && management_.send_input(vm, pending_[sent])) ++sent;
    if (sent == 0) return;
    const usize left = pending_.size() - sent;
    for (usize i = 0; i < left; ++i) pending_[i] = pending_[sent + i];
    while (pending_.size() > left) pending_.pop_back();
}

bool Session::poll_attached() {
    flush_pending(*attached_);
    ConsoleRing* ring = management_.console(*attached_);
    if (ring == nullptr) {
        note("the VM is gone");
        detach();
        return false;
    }
    u8 buffer[poll_bytes];
    const usize count = ring->read(buffer);
    if (ring->dropped() != dropped_noted_) {
        FixedString<80> text;
        print(text, "{} bytes of output were lost: this line is too slow", ring->dropped() - dropped_noted_);
        dropped_noted_ = ring->dropped();
        note(text);
    }
    if (count > 0) terminal_.write({reinterpret_cast<const char*>(buffer), count});
    return ring->has_news();
}

void Session::guest_output(VmId vm, Bytes bytes) {
    if (!attached_ || *attached_ != vm || bytes.empty()) return;
    terminal_.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

// --- Messages ---

// Amid a guest's output: on a line of its own.
void Session::note(std::string_view text) {
    print(terminal_, "\r\n[bulkhead: {}]\r\n", Filtered(text));
}

void Session::notify(std::string_view text) {
    if (attached_) return note(text);
    if (mode_ == Mode::command) {
        if (interpreter_.live() && !interpreter_.whole_screen() && !stepping_) {
            print(output_, "{}\n", Filtered(text));
        } else if (held_back_.size() + text.size() + 2 > held_back_.capacity()) {
            ++messages_lost_;
        } else {
            print(held_back_, "{}\r\n", Filtered(text));
        }
        return;
    }
    if (editing_) editor_.hide();
    print(terminal_, "{}\r\n", Filtered(text));
    if (editing_) editor_.show();
}

}  // namespace bulkhead
