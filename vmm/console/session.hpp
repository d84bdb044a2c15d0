// One operator's terminal: at the management prompt, running a command, or attached to a VM's serial port.
//
// A command runs in poll(), a bounded step each time. Meanwhile Ctrl-C breaks it off, any key ends one that
// would not end by itself, and what is typed else waits for the prompt.
//
// Attached, the VM's output goes to the terminal as it is, and every key but the escape key goes to the VM. A
// guest can therefore leave the terminal in any state it likes; leaving puts it back in order before the
// prompt appears, and what the terminal still answers to the guest's questions is ignored by the line editor.
// (Not undone: colours redefined and the window's title changed by xterm's OSC sequences.)
#pragma once

#include <string_view>

#include "kernel/base/bytes.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "vmm/console/commands.hpp"
#include "vmm/console/output_buffer.hpp"

namespace bulkhead {

// About 130 KiB: not for a stack. All calls from one core, or under one lock.
class Session {
  public:
    static constexpr usize max_pending = 1024;
    static constexpr usize poll_bytes = 64;     // of a VM's output
    static constexpr usize output_bytes = 256;  // of a command's: 22 ms at 115200 baud
    static constexpr usize max_type_ahead = 256;

    // `escape`: the control character that leaves a VM's console (HostConfig::escape).
    Session(Sink& terminal, Management& management, u8 escape)
        : terminal_(terminal),
          management_(management),
          escape_(escape),
          interpreter_(management),
          editor_(terminal, prompt, interpreter_),
          output_(terminal) {}
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Shows the prompt.
    void start();

    // A byte from the operator's terminal.
    void input(u8 byte);

    // To be called often: does a step of the command that runs or passes on some of its output; or forwards
    // what the attached VM has written to its ring, at most poll_bytes, and hands the VM input that it had no
    // room for. True if there is more to do at once.
    bool poll();

    // For a VM whose output does not go through its ring: forwards it if this terminal is attached to the VM.
    void guest_output(VmId vm, Bytes bytes);

    // A line for the operator, whatever is going on: a VM stopped, the log. Filtered, without line end.
    void notify(std::string_view text);

    [[nodiscard]] std::optional<VmId> attached() const { return attached_; }
    // Replays what the ring has, or its last `lines` lines.
    void attach(VmId vm, std::optional<u64> lines = std::nullopt);
    void detach();

  private:
    static constexpr std::string_view prompt = "bulkhead> ";
    static constexpr std::string_view text_prompt = "config> ";

    enum class Mode : u8 {
        prompt,   // a command is typed
        command,  // one runs, or its output is still on its way
        text,     // one waits for a text to be typed
    };

    void edit(u8 byte);
    void break_off(u8 byte);
    void finish_command();
    [[nodiscard]] bool step_command();
    [[nodiscard]] bool poll_attached();
    [[nodiscard]] bool swallows(u8 byte);
    void show_prompt();
    void send(VmId vm, u8 byte);
    void flush_pending(VmId vm);
    void note(std::string_view text);

    Sink& terminal_;
    Management& management_;
    u8 escape_;
    CommandInterpreter interpreter_;
    LineEditor editor_;

    std::optional<VmId> attached_;
    FixedString<31> attached_name_;
    FixedVector<u8, max_pending> pending_;  // input that the VM's FIFO had no room for
    bool overflow_noted_ = false;
    u64 dropped_noted_ = 0;
    bool editing_ = false;  // a prompt is on the screen

    Mode mode_ = Mode::prompt;
    OutputBuffer output_;
    bool stepping_ = false;                       // within a command: what it does may come back here
    FixedVector<u8, max_type_ahead> type_ahead_;  // keys for the prompt that is to come
    FixedString<1000> held_back_;                 // messages that must not be amid a command's output
    unsigned messages_lost_ = 0;                  // of them
    enum class Swallow : u8 { nothing, escape, sequence };
    Swallow swallow_ = Swallow::nothing;  // the rest of a key of several bytes that ended a command
};

}  // namespace bulkhead
