// One piece of work that one core gives another to do, and waits for. One core posts; one core serves.
#pragma once

#include <atomic>

#include "kernel/base/types.hpp"

namespace bulkhead {

// Work: a class with a method run().
template <class Work>
class CoreMailbox {
  public:
    // ---- The core that posts
    // False while earlier work is in here.
    [[nodiscard]] bool post(Work& work) {
        if (state_.load(std::memory_order_acquire) != State::empty) return false;
        work_ = &work;
        state_.store(State::posted, std::memory_order_release);
        return true;
    }
    // True once, when the work is done; what it wrote is visible then.
    [[nodiscard]] bool take_result() { return replace(State::done, State::empty); }
    // Takes back what the other core has not begun; false if it has.
    [[nodiscard]] bool withdraw() { return replace(State::posted, State::empty); }

    // ---- The core that serves
    // Does the work that is there, if any. False: there was none.
    bool serve() {
        if (state_.load(std::memory_order_relaxed) != State::posted) return false;
        if (!replace(State::posted, State::running)) return false;
        work_->run();
        state_.store(State::done, std::memory_order_release);
        return true;
    }

  private:
    enum class State : u8 { empty, posted, running, done };

    bool replace(State from, State to) {
        return state_.compare_exchange_strong(from, to, std::memory_order_acq_rel);
    }

    std::atomic<State> state_{State::empty};
    Work* work_ = nullptr;
};

}  // namespace bulkhead
