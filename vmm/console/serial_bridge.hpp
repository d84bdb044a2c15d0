// A VM's serial port on a physical one: what the VM sends goes out on the port as fast as that takes it, and
// what comes in on the port goes to the VM. Bytes pass as they are. The VM's ring keeps everything as well,
// so that `logs` and `scrollback` have it.
#pragma once

#include <optional>

#include "vmm/console/management.hpp"

namespace bulkhead {

// One physical serial port.
class SerialPort {
  public:
    [[nodiscard]] virtual bool can_send() = 0;
    virtual void send(u8 byte) = 0;  // only when it can
    [[nodiscard]] virtual std::optional<u8> receive() = 0;

  protected:
    ~SerialPort() = default;
};

class SerialBridge {
  public:
    // Each way, in one poll.
    static constexpr usize poll_bytes = 64;

    SerialBridge(SerialPort& port, Management& management, VmId vm)
        : port_(port), management_(management), vm_(vm) {}
    SerialBridge(const SerialBridge&) = delete;
    SerialBridge& operator=(const SerialBridge&) = delete;

    [[nodiscard]] VmId vm() const { return vm_; }

    // To be called often. True if there is more to move at once.
    bool poll();

    // The VM's output that the line was too slow for, and input that came while the VM was off.
    [[nodiscard]] u64 dropped_output() const { return cursor_.dropped; }
    [[nodiscard]] u64 dropped_input() const { return dropped_input_; }

  private:
    [[nodiscard]] bool move_output();
    [[nodiscard]] bool move_input();

    SerialPort& port_;
    Management& management_;
    VmId vm_;
    ConsoleRing::Cursor cursor_;
    // A byte on its way that the other side had no room for.
    std::optional<u8> waiting_output_, waiting_input_;
    u64 dropped_input_ = 0;
};

}  // namespace bulkhead
