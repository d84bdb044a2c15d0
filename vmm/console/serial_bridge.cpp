#include "vmm/console/serial_bridge.hpp"

namespace bulkhead {

bool SerialBridge::poll() {
    const bool more_output = move_output();
    const bool more_input = move_input();
    return more_output || more_input;
}

bool SerialBridge::move_output() {
    usize sent = 0;
    for (; sent < poll_bytes && port_.can_send(); ++sent) {
        if (!waiting_output_) {
            ConsoleRing* ring = management_.console(vm_);
            u8 byte = 0;
            if (ring == nullptr || ring->read(cursor_, {&byte, 1}) == 0) return false;
            waiting_output_ = byte;
        }
        port_.send(*waiting_output_);
        waiting_output_.reset();
    }
    return sent == poll_bytes;
}

bool SerialBridge::move_input() {
    for (usize moved = 0; moved < poll_bytes; ++moved) {
        if (!waiting_input_) waiting_input_ = port_.receive();
        if (!waiting_input_) return false;
        if (!management_.send_input(vm_, *waiting_input_)) {
            // A VM that is off hears nothing; one that is on is slow, and the line's own buffer holds the
            // rest meanwhile.
            if (management_.console(vm_) != nullptr) return false;
            ++dropped_input_;
        }
        waiting_input_.reset();
    }
    return true;
}

}  // namespace bulkhead
