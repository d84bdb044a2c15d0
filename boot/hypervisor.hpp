// From a machine that is up to one that runs VMs.
#pragma once

#include "boot/host.hpp"

namespace bulkhead {

// Turns virtualisation on, reads the config, starts the VMs and serves the console. Where the machine cannot
// run VMs it says what is missing; the console still answers.
[[noreturn]] void run_hypervisor(Host& host);

}  // namespace bulkhead
