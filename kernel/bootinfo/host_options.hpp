// The hypervisor's own command line: words separated by spaces, each `option=value`.
#pragma once

#include <optional>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/bootinfo/fault_injection.hpp"
#include "kernel/log/log_ring.hpp"

namespace bulkhead {

struct HostOptions {
    enum class OnPanic : u8 { halt, reset };

    // console=com1..com4|none: the operator's serial port, 0..3. None given: the config decides, else com1.
    std::optional<u8> console;
    bool no_console = false;
    u32 baud = 115200;                    // baud=1200..115200, a divisor of 115200
    LogLevel log_level = LogLevel::info;  // loglevel=error|warning|info|debug
    bool screen = true;                   // screen=on|off: mirror the log on the screen
    OnPanic on_panic = OnPanic::halt;     // panic=halt|reset
    u32 max_cpus = 256;                   // maxcpus=1..256
    bool acpi = true;                     // acpi=on|off
    // virtual-interrupts=on|off: whether the processor delivers guests' interrupts. None given: where it can,
    // and does it right.
    std::optional<bool> virtual_interrupts;
    FaultSet faults;  // inject=FAULT[,FAULT...]: debug builds only

    // Options that were not understood, as lines to log. Further ones are only counted.
    FixedVector<FixedString<160>, 4> complaints;
    u32 complaint_count = 0;
};

[[nodiscard]] HostOptions parse_host_options(std::string_view command_line);

}  // namespace bulkhead
