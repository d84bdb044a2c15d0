// The inmate: a hostile guest that tries what is on the list of threats, one line a case. On its command
// line:
//   only=AREA   only the probes of one area: state, msr, cr, instructions, events, ...
//   quiet=1     prints no cases that pass, only how many
//   avoid=...   see avoided()
#include "tests/guests/inmate/probe.hpp"

namespace {

constexpr struct {
    const char* name;
    void (*run)();
} areas[] = {
    {"state", probe_reset_state},
    {"msr", probe_msrs},
    {"cr", probe_control_registers},
    {"instructions", probe_instructions},
    {"events", probe_events},
    {"ports", probe_ports},
    {"mmio", probe_mmio},
    {"memory", probe_memory},
    {"apic", probe_apic},
    {"x2apic", probe_x2apic},
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
        if (option("only") == nullptr || is_option("only", area.name)) area.run();
    print_totals();
}
