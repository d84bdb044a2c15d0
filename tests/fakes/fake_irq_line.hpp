// An interrupt line that remembers its level and counts its edges.
#pragma once

#include "vmm/dev/device.hpp"

namespace bulkhead {

class FakeIrqLine final : public IrqLine {
  public:
    void set(bool value) override {
        if (value && !level) ++rises;
        if (!value && level) ++falls;
        level = value;
        ++calls;
    }

    bool level = false;
    unsigned rises = 0;
    unsigned falls = 0;
    unsigned calls = 0;
};

}  // namespace bulkhead
