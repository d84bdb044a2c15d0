// The handshake between a core that starts and the one that starts it. Either may be slow: the starter gives
// up after its time, and a core that shows up later learns that it is not wanted and parks.
#pragma once

#include <atomic>

#include "kernel/base/types.hpp"

namespace bulkhead {

class CoreStart {
  public:
    enum class State : u8 {
        absent,    // nobody has called it
        called,    // the start-up interrupt is sent
        answered,  // it runs its set-up
        online,
        failed,    // its set-up failed; it has parked
        given_up,  // it was too slow, or must not start
    };

    [[nodiscard]] State state() const { return state_.load(std::memory_order_acquire); }
    [[nodiscard]] bool online() const { return state() == State::online; }

    // The starter's side.
    void call() { state_.store(State::called, std::memory_order_release); }
    // The core that needs no start, or must not be started.
    void settle(bool is_online) {
        state_.store(is_online ? State::online : State::given_up, std::memory_order_release);
    }
    // False if the core came to an end of its set-up after all, online or failed.
    [[nodiscard]] bool give_up() {
        return replace(State::called, State::given_up) || replace(State::answered, State::given_up) ||
               state() == State::given_up;
    }

    // The core's side. False: it was given up, and must park. What it wrote before finish() is visible to
    // whoever sees the outcome.
    [[nodiscard]] bool answer() { return replace(State::called, State::answered); }
    [[nodiscard]] bool finish(bool success) {
        return replace(State::answered, success ? State::online : State::failed);
    }

  private:
    bool replace(State from, State to) {
        return state_.compare_exchange_strong(from, to, std::memory_order_acq_rel);
    }

    std::atomic<State> state_{State::absent};
};

}  // namespace bulkhead
