// Which guest a core served last, and whose memory it has seen since: what has to be flushed before the next
// guest gets the core.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

// For one core. Address spaces are known by their root.
class GuestSwitch {
  public:
    struct Flush {
        bool predictor = false;  // another guest, or one unknown, taught the branch predictor
        bool data = false;       // the caches may hold another VM's data
    };

    // The core is in this address space from now on: a VM's, or the kernel's own, in which core 0 clears and
    // fills any VM's memory.
    constexpr void enter(HostPhysical root, bool kernel) {
        current_ = root;
        if (root != last_guest_) foreign_ = true;
        // VMs come and go there: the root of a later one may lie where the last one's did.
        if (kernel) last_guest_ = {};
    }

    // The guest whose address space the core is in is about to run.
    [[nodiscard]] constexpr Flush before_guest() {
        if (current_ == last_guest_ && !foreign_) [[likely]]
            return {};
        const Flush flush{.predictor = current_ != last_guest_, .data = true};
        last_guest_ = current_;
        foreign_ = false;
        return flush;
    }

  private:
    HostPhysical current_{};
    HostPhysical last_guest_{};  // 0: nobody known
    bool foreign_ = true;
};

}  // namespace bulkhead
