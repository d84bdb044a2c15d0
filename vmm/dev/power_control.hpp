// What a chip can do to the machine as a whole.
#pragma once

namespace bulkhead {

class PowerControl {
  public:
    // Both take effect after the guest's present instruction: the implementation notes the wish and returns.
    virtual void power_off() = 0;
    virtual void reset_machine() = 0;

  protected:
    ~PowerControl() = default;
};

}  // namespace bulkhead
