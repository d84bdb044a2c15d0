// The machine's serial ports other than the management console, where VMs' consoles are bound to them
// (console = "com2").
#pragma once

#include <optional>

#include "boot/host.hpp"
#include "drivers/uart_16550.hpp"
#include "vmm/console/serial_bridge.hpp"

namespace bulkhead {

class SerialLines {
  public:
    SerialLines(Host& host, Management& management, u32 baud)
        : host_(host), management_(management), baud_(baud) {}
    SerialLines(const SerialLines&) = delete;
    SerialLines& operator=(const SerialLines&) = delete;

    // Binds what VMs' configurations ask for by now; a port that has no working UART is named in the log.
    void bind();
    // Moves bytes both ways. True if there is more to move at once.
    bool poll();
    [[nodiscard]] bool in_use() const;

  private:
    static constexpr usize port_count = 4;

    class Line final : public SerialPort {
      public:
        bool can_send() override { return uart.ready_to_send(); }
        void send(u8 byte) override { uart.put(byte); }
        std::optional<u8> receive() override { return uart.receive(); }

        drivers::Uart16550 uart;
        std::optional<SerialBridge> bridge;
        bool tried = false;
    };

    Host& host_;
    Management& management_;
    u32 baud_;
    Line lines_[port_count];
};

}  // namespace bulkhead
