// Timers of one core, by deadline. Adding, moving, cancelling and expiring take a number of steps that is
// logarithmic in the number of timers, which is bounded.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

// One timer; owned by whoever waits. It must be out of the queue before it goes.
class Timer {
  public:
    static constexpr u64 never = ~u64{0};

    Timer() = default;
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    [[nodiscard]] bool is_armed() const { return place_ != nowhere; }
    [[nodiscard]] u64 deadline() const { return deadline_; }

  private:
    template <usize>
    friend class TimerQueue;
    static constexpr usize nowhere = ~usize{0};
    u64 deadline_ = never;
    usize place_ = nowhere;  // in the heap
};

// A binary heap of up to `Capacity` timers, the earliest on top.
template <usize Capacity>
class TimerQueue {
  public:
    // Arms the timer, or moves it. False, with nothing changed, when the queue is full.
    [[nodiscard]] bool arm(Timer& timer, u64 deadline) {
        if (!timer.is_armed()) {
            if (size_ == Capacity) return false;
            put(size_++, timer);
        }
        timer.deadline_ = deadline;
        settle(timer.place_);
        return true;
    }

    // No effect on a timer that is not armed.
    void cancel(Timer& timer) {
        if (!timer.is_armed()) return;
        const usize place = timer.place_;
        timer.place_ = Timer::nowhere;
        Timer& last = *heap_[--size_];
        if (&last == &timer) return;
        put(place, last);
        settle(place);
    }

    [[nodiscard]] u64 next_deadline() const { return size_ == 0 ? Timer::never : heap_[0]->deadline_; }

    // The earliest timer whose deadline is not after `now`, disarmed; null if there is none. Of a storm of
    // timers each call returns one: the caller bounds its loop.
    [[nodiscard]] Timer* expire(u64 now) {
        if (size_ == 0 || heap_[0]->deadline_ > now) return nullptr;
        Timer* timer = heap_[0];
        cancel(*timer);
        return timer;
    }

    [[nodiscard]] usize size() const { return size_; }

  private:
    void put(usize place, Timer& timer) {
        heap_[place] = &timer;
        timer.place_ = place;
    }
    void swap(usize a, usize b) {
        Timer& first = *heap_[a];
        put(a, *heap_[b]);
        put(b, first);
    }
    // Moves the timer at `place` up or down to where it belongs.
    void settle(usize place) {
        while (place > 0 && heap_[place]->deadline_ < heap_[(place - 1) / 2]->deadline_) {
            swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
        for (;;) {
            usize least = place;
            for (usize child = 2 * place + 1; child <= 2 * place + 2 && child < size_; ++child) {
                if (heap_[child]->deadline_ < heap_[least]->deadline_) least = child;
            }
            if (least == place) return;
            swap(place, least);
            place = least;
        }
    }

    Timer* heap_[Capacity] = {};
    usize size_ = 0;
};

}  // namespace bulkhead
