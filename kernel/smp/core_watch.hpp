// Finds a core that has stopped making progress. A core that runs a guest undisturbed, or halts, is silent
// with good reason; it is accountable while it runs host code, or while an interrupt that it was sent has not
// been taken.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

struct CoreSign {
    u64 heartbeat = 0;  // changes whenever the core makes progress, and when it begins to be accountable
    bool accountable = false;
};

class CoreWatch {
  public:
    enum class Verdict : u8 {
        fine,
        silent,     // once, when it has been silent for `limit`
        lost,       // once, when it has been so for `lost_limit`, too
        recovered,  // once, when it was reported and goes on
    };

    // `now` and the limits in ticks of a clock that never goes back.
    [[nodiscard]] Verdict look(u64 now, const CoreSign& sign, u64 limit, u64 lost_limit = ~u64{0}) {
        if (!sign.accountable || !watched_ || sign.heartbeat != heartbeat_) {
            heartbeat_ = sign.heartbeat;
            // Only what was seen accountable twice without a beat in between was silent from the first.
            watched_ = sign.accountable;
            since_ = now;
            if (!reported_) return Verdict::fine;
            reported_ = lost_ = false;
            return Verdict::recovered;
        }
        const u64 silence = now - since_;
        if (!reported_ && silence >= limit) {
            reported_ = true;
            return Verdict::silent;
        }
        if (reported_ && !lost_ && silence >= lost_limit) {
            lost_ = true;
            return Verdict::lost;
        }
        return Verdict::fine;
    }
    // Since when it has not been seen to make progress.
    [[nodiscard]] u64 since() const { return since_; }

  private:
    u64 heartbeat_ = 0;
    u64 since_ = 0;
    bool watched_ = false;
    bool reported_ = false, lost_ = false;
};

}  // namespace bulkhead
