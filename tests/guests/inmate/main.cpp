// The inmate: a hostile guest that tries what is on the list of threats, one line a case. On its command
// line:
//   only=AREA   only the probes of one area: state, msr, cr, instructions, events, ...
//   fatal=NAME  instead, what ends or occupies this virtual machine: see fatal.cpp
#include "tests/guests/inmate/probe.hpp"

namespace {

constexpr struct {
    const char* name;
    void (*run)();
    bool always = true;
} areas[] = {
    {"state", probe_reset_state},    {"msr", probe_msrs},
    {"cr", probe_control_registers}, {"instructions", probe_instructions},
    {"events", probe_events, false}, {"ports", probe_ports, false},
    {"mmio", probe_mmio, false},     {"memory", probe_memory, false},
    {"apic", probe_apic, false},     {"x2apic", probe_x2apic, false},
};

}  // namespace

extern "C" void guest_main() {
    print("\r\nINMATE begins\r\n");
    // No interrupt waits for the probes to let it in.
    out8(0x21, 0xFF);
    out8(0xA1, 0xFF);
    prepare_window();
    learn_machine();
    for (const auto& area : areas)
        if (option("only") == nullptr ? area.always : is_option("only", area.name)) area.run();
    print_totals();
}
