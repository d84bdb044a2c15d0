#include "kernel/sched/run_queue.hpp"

#include <algorithm>

namespace bulkhead {
namespace {

// Virtual times may wrap, after years; their differences stay small.
[[nodiscard]] bool before(u64 a, u64 b) {
    return static_cast<i64>(a - b) < 0;
}

// Beyond this a turn is not charged in full: 2 years at 4 GHz. It keeps products within 64 bits.
constexpr u64 longest_charge = u64{1} << 56;

}  // namespace

Result<> RunQueue::add(Runnable& runnable, u64 now) {
    if (runnable.queued_) return fail("runnable {} is in a queue already", runnable.id());
    if (!queue_.push_back(&runnable)) return fail("a core runs at most {} runnables", max_runnables);
    (void)charge(now);
    runnable.queued_ = true;
    runnable.throttled_ = false;
    runnable.state_.store(Runnable::State::blocked, std::memory_order_relaxed);
    const i64 behind = static_cast<i64>(to_virtual(granularity_, runnable));
    const i64 ahead = static_cast<i64>(to_virtual(latency_, runnable)) + behind;
    runnable.virtual_time_ =
        floor_ + static_cast<u64>(std::clamp(static_cast<i64>(runnable.virtual_time_), -behind, ahead));
    return {};
}

void RunQueue::remove(Runnable& runnable, u64 now) {
    for (usize i = 0; i < queue_.size(); ++i) {
        if (queue_[i] != &runnable) continue;
        block(runnable, now);
        if (current_ == &runnable) current_ = nullptr;
        queue_.erase(i);
        runnable.queued_ = false;
        runnable.virtual_time_ -= floor_;
        return;
    }
}

// What the current one has run since the last call is on its account.
u64 RunQueue::charge(u64 now) {
    if (!started_) {
        started_ = true;
        clock_ = now;
        idle_.start(now);
    }
    if (now <= clock_) return clock_;
    const u64 ran = std::min(now - clock_, longest_charge);
    clock_ = now;
    if (!running_) return now;
    Runnable& runnable = *current_;
    const u64 product = ran * Runnable::default_weight + runnable.virtual_rest_;
    runnable.virtual_time_ += product / runnable.weight();
    runnable.virtual_rest_ = product % runnable.weight();
    if (!runnable.part_.is_limited) return now;
    const u64 paid = std::min(ran, runnable.part_.ticks);
    runnable.part_.ticks -= paid;
    if (ran > paid) runnable.bandwidth_->charge(now, ran - paid);
    return now;
}

// From now on this one runs, or none.
void RunQueue::run(Runnable* runnable, u64 now) {
    if (running_ && current_ != runnable) current_->run_time_.stop(now);
    running_ = runnable != nullptr;
    if (!running_) {
        busy_.stop(now);
        idle_.start(now);
        return;
    }
    current_ = runnable;
    runnable->run_time_.start(now);
    idle_.stop(now);
    busy_.start(now);
}

void RunQueue::return_part(Runnable& runnable) {
    if (runnable.bandwidth_ != nullptr) runnable.bandwidth_->give_back(runnable.part_);
    runnable.part_ = {};
}

// Who slept long, or was held back by its group's limit, has a claim to run soon, but not to make up for all
// of it.
void RunQueue::catch_up(Runnable& runnable) const {
    const u64 least = floor_ - to_virtual(granularity_, runnable);
    if (before(runnable.virtual_time_, least)) runnable.virtual_time_ = least;
}

u64 RunQueue::slice_of(const Runnable& runnable, u64 weights) const {
    return std::max(latency_ * runnable.weight() / weights, granularity_);
}

// The virtual time by which it waits for its turn. A member that could be called by a lower core waits for
// that, for a while.
u64 RunQueue::turn_of(const Runnable& runnable) const {
    const u64 lower = own_bit() - (own_bit() != 0 ? 1 : 0);
    const bool follows = runnable.gang_ != nullptr && (runnable.gang_->contended() & lower) != 0;
    return runnable.virtual_time_ + (follows ? to_virtual(latency_, runnable) : 0);
}

// The call of its gang that it follows, if there is one; decided once for each call. It has to be no further
// ahead than a call or two put it, or else those that share only this core with it would have less than their
// share.
std::optional<Gang::Call> RunQueue::call_for(Runnable& runnable, u64 now) const {
    if (runnable.gang_ == nullptr || own_bit() == 0) return {};
    const auto call = runnable.gang_->call_at(now);
    if (!call || runnable.declined_ == call->generation) return {};
    if (runnable.followed_ != call->generation &&
        before(floor_ + to_virtual(2 * latency_, runnable), runnable.virtual_time_)) {
        runnable.declined_ = call->generation;
        return {};
    }
    return call;
}

bool RunQueue::wake(Runnable& runnable, u64 now) {
    if (!runnable.queued_ || runnable.state() == Runnable::State::runnable) return false;
    now = charge(now);
    runnable.state_.store(Runnable::State::runnable, std::memory_order_relaxed);
    runnable.woken_at_ = now;
    ++runnable_count_;
    catch_up(runnable);
    // Noted also if there is no pick() now, or else a call would not kick this core.
    if (runnable.gang_ != nullptr && runnable_count_ > 1) runnable.gang_->set_contended(core_, true);
    if (runnable.bandwidth_ != nullptr) {
        const u64 refill = runnable.bandwidth_->throttled_until(now);
        if (refill != 0) return refill < until_;
    }
    if (!running_ || !contended_) return true;
    if (const auto call = call_for(runnable, now)) return now >= called_until_ || call->until < called_until_;
    return now >= called_until_ && before(turn_of(runnable), turn_of(*current_));
}

void RunQueue::block(Runnable& runnable, u64 now) {
    if (!runnable.queued_ || runnable.state() == Runnable::State::blocked) return;
    now = charge(now);
    runnable.state_.store(Runnable::State::blocked, std::memory_order_relaxed);
    --runnable_count_;
    if (current_ == &runnable && running_) run(nullptr, now);
    return_part(runnable);
    // If the queue has another member of this gang, the next pick() notes it again.
    if (runnable.gang_ != nullptr) runnable.gang_->set_contended(core_, false);
}

bool RunQueue::set_weight(Runnable& runnable, u32 weight, u64 now) {
    if (runnable.queued_) (void)charge(now);
    runnable.weight_.store(Runnable::in_range(weight), std::memory_order_relaxed);
    runnable.virtual_rest_ = 0;
    return runnable.queued_ && runnable.state() == Runnable::State::runnable && running_ && contended_;
}

RunQueue::Contention RunQueue::survey(u64 now) {
    Contention found;
    u64 least = floor_;
    for (Runnable* runnable : queue_) {
        if (runnable->state() != Runnable::State::runnable) continue;
        const u64 refill = runnable->bandwidth_ != nullptr ? runnable->bandwidth_->throttled_until(now) : 0;
        if (refill != 0) {
            if (!runnable->throttled_) runnable->bandwidth_->count_throttled();
            runnable->throttled_ = true;
            found.refill = std::min(found.refill, refill);
            continue;
        }
        if (runnable->throttled_) catch_up(*runnable);
        runnable->throttled_ = false;
        if (found.contenders++ == 0 || before(runnable->virtual_time_, least))
            least = runnable->virtual_time_;
        found.weights += runnable->weight();
    }
    if (before(floor_, least)) floor_ = least;
    return found;
}

RunQueue::Choice RunQueue::pick(u64 now) {
    now = charge(now);
    if (current_ != nullptr) return_part(*current_);
    const Contention found = survey(now);
    contended_ = found.contenders > 1;

    Runnable* best = nullptr;
    std::optional<Gang::Call> best_call;
    for (Runnable* runnable : queue_) {
        if (runnable->state() != Runnable::State::runnable) continue;
        // Also while throttled, so that at the quota's return the first to pick can call the others.
        if (runnable->gang_ != nullptr)
            runnable->gang_->set_contended(core_, runnable->throttled_ ? runnable_count_ > 1 : contended_);
        if (runnable->throttled_) continue;
        const auto call = contended_ ? call_for(*runnable, now) : std::nullopt;
        // Of several gangs' calls the one that ends first, which is the same on all cores.
        const bool wins = best == nullptr                             ? true
                          : call.has_value() != best_call.has_value() ? call.has_value()
                          : call && call->until != best_call->until
                              ? call->until < best_call->until
                              : before(turn_of(*runnable), turn_of(*best));
        if (!wins) continue;
        best = runnable;
        best_call = call;
    }
    const bool ran_before = running_ && current_ == best;
    run(best, now);
    called_until_ = 0;
    until_ = found.refill;
    if (best == nullptr) return {.next = nullptr, .until = until_};

    const auto limit = [&](u64 ticks) {
        if (ticks < forever - now) until_ = std::min(until_, now + ticks);
    };
    if (best_call) {
        limit(best_call->until - now);
    } else if (contended_) {
        limit(slice_of(*best, found.weights));
    }
    if (best->bandwidth_ != nullptr) {
        best->part_ = best->bandwidth_->take(now, until_ - now, granularity_);
        limit(best->part_.ticks);
    }

    Choice choice{.next = best, .until = until_};
    if (best_call) {
        called_until_ = best_call->until;
        // Who was woken during the call does not tell how fast the others were kicked.
        if (best->followed_ != best_call->generation && !before(best_call->start, best->woken_at_))
            best->gang_->follow(*best_call, ran_before ? best_call->start : now);
        best->followed_ = best_call->generation;
    } else if (contended_ && best->gang_ != nullptr && own_bit() != 0) {
        const u64 others = best->gang_->contended() & ~own_bit();
        const auto call = others != 0 ? best->gang_->call(now, until_) : std::nullopt;
        if (call) {
            called_until_ = call->until;
            best->followed_ = call->generation;
            choice.kick = others;
        }
    }
    return choice;
}

}  // namespace bulkhead
