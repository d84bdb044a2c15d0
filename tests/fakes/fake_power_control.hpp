// Counts what chips wanted done to the machine.
#pragma once

#include "vmm/dev/power_control.hpp"

namespace bulkhead {

class FakePowerControl final : public PowerControl {
  public:
    void power_off() override { ++power_offs; }
    void reset_machine() override { ++resets; }

    unsigned power_offs = 0;
    unsigned resets = 0;
};

}  // namespace bulkhead
