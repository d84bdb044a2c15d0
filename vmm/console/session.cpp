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

void Session::LineEndSink::write(std::string_view text) {
    usize start = 0;
    for (usize i = 0; i < text.size(); ++i) {
        if (text[i] != '\n') continue;
        next_.write({text.data() + start, i - start});
        next_.write("\r\n");
        start = i + 1;
    }
    if (start < text.size()) next_.write({text.data() + start, text.size() - start});
}

void Session::start() {
    editing_ = true;
    editor_.start();
}

void Session::input(u8 byte) {
    if (attached_) {
        if (byte == escape_) {
            detach();
        } else {
            send(*attached_, byte);
        }
        return;
    }
    switch (editor_.input(byte)) {
        case LineEditor::Event::none: return;
        case LineEditor::Event::cancelled: break;
        case LineEditor::Event::line: {
            editing_ = false;
            LineEndSink out(terminal_);
            if (const auto vm = interpreter_.execute(editor_.line(), out)) {
                attach(*vm);
                if (attached_) return;
            }
            break;
        }
    }
    start();
}

// --- Attached ---

void Session::attach(VmId vm) {
    ConsoleRing* ring = management_.console(vm);
    if (ring == nullptr) return;
    if (editing_) editor_.hide();
    editing_ = false;
    VmDetails details;
    attached_name_.clear();
    if (management_.details(vm, details)) attached_name_.append(details.summary.name);
    ring->rewind();
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

bool Session::poll() {
    if (!attached_) return false;
    ConsoleRing* ring = management_.console(*attached_);
    if (ring == nullptr) {
        note("the VM is gone");
        detach();
        return false;
    }
    flush_pending(*attached_);
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
    if (editing_) editor_.hide();
    print(terminal_, "{}\r\n", Filtered(text));
    if (editing_) editor_.show();
}

}  // namespace bulkhead
