// How many lines a guest may cause in the log: whoever makes a VM stop and start again without end must not
// wash out what others had to say.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

// A burst of lines, then one now and then; what is left out is counted. Times are TSC values of one clock.
class LineBudget {
  public:
    static constexpr u32 burst = 10;
    static constexpr u64 seconds_a_line = 10;

    // For each line: true if it may be written. `hz`: ticks a second.
    [[nodiscard]] constexpr bool take(u64 now, u64 hz) {
        const u64 ticks_a_line = seconds_a_line * hz;
        if (left_ == burst) {
            since_ = now;
        } else if (ticks_a_line != 0 && now > since_) {
            const u64 earned = (now - since_) / ticks_a_line;
            if (earned >= burst - left_) {
                left_ = burst;
                since_ = now;
            } else {
                left_ += static_cast<u32>(earned);
                since_ += earned * ticks_a_line;
            }
        }
        if (left_ == 0) {
            ++dropped_;
            return false;
        }
        --left_;
        return true;
    }

    // How many lines were left out since the last call: for the next line that is written to tell.
    [[nodiscard]] constexpr u64 take_dropped() {
        const u64 count = dropped_;
        dropped_ = 0;
        return count;
    }

  private:
    u32 left_ = burst;
    u64 since_ = 0;  // when the bucket began to fill
    u64 dropped_ = 0;
};

}  // namespace bulkhead
