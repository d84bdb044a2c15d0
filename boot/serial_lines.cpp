#include "boot/serial_lines.hpp"

namespace bulkhead {

void SerialLines::bind() {
    static constexpr u16 ports[port_count] = {0x3F8, 0x2F8, 0x3E8, 0x2E8};
    for (usize i = 0; i < management_.vm_count(); ++i) {
        VmSummary summary;
        VmDetails details;
        if (!management_.summary(i, summary) || !management_.details(summary.id, details)) continue;
        if (details.config == nullptr || details.config->console == ComPort::none) continue;
        const ComPort wanted = details.config->console;
        const usize number = static_cast<usize>(wanted) - 1;
        Line& line = lines_[number];
        if (line.bridge && line.bridge->vm() == summary.id) continue;
        if (!line.tried) {
            line.tried = true;
            line.uart.set_tsc_hz(host_.machine.tsc_hz());
            const bool ours = host_.console.present() && host_.console.base() == Port(ports[number]);
            if (ours || !line.uart.initialize(Port(ports[number]), baud_)) {
                host_.log.error(
                    "HV-E006: no working UART at {} for the console of VM {}; reach it by `console {}`, or "
                    "choose another port",
                    name_of(wanted), summary.name, summary.name);
            }
        }
        if (line.uart.present()) line.bridge.emplace(line, management_, summary.id);
    }
}

bool SerialLines::poll() {
    bool more = false;
    for (Line& line : lines_) {
        if (line.bridge && line.bridge->poll()) more = true;
    }
    return more;
}

bool SerialLines::in_use() const {
    for (const Line& line : lines_) {
        if (line.bridge) return true;
    }
    return false;
}

}  // namespace bulkhead
