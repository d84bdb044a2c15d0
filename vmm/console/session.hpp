// One operator's terminal: either at the management prompt, or attached to a VM's serial port.
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

namespace bulkhead {

// About 20 KiB: not for a stack. All calls from one core, or under one lock.
class Session {
  public:
    static constexpr usize max_pending = 64;
    static constexpr usize poll_bytes = 64;

    // `escape`: the control character that leaves a VM's console (HostConfig::escape).
    Session(Sink& terminal, Management& management, u8 escape)
        : terminal_(terminal),
          management_(management),
          escape_(escape),
          interpreter_(management),
          editor_(terminal, "bulkhead> ", interpreter_) {}
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Shows the prompt.
    void start();

    // A byte from the operator's terminal.
    void input(u8 byte);

    // To be called often: forwards what the attached VM has written to its ring, at most poll_bytes, and
    // hands the VM input that it had no room for. True if there is more output to forward at once.
    bool poll();

    // For a VM whose output does not go through its ring: forwards it if this terminal is attached to the VM.
    void guest_output(VmId vm, Bytes bytes);

    // A line for the operator, whatever is going on: a VM stopped, the log. Filtered, without line end.
    void notify(std::string_view text);

    [[nodiscard]] std::optional<VmId> attached() const { return attached_; }
    void attach(VmId vm);
    void detach();

  private:
    // Ends lines the way terminals want it.
    class LineEndSink final : public Sink {
      public:
        explicit LineEndSink(Sink& next) : next_(next) {}
        void write(std::string_view text) override;

      private:
        Sink& next_;
    };

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
    bool editing_ = false;  // the prompt is on the screen
};

}  // namespace bulkhead
