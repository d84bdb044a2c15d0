#include "kernel/sched/run_queue.hpp"

namespace bulkhead {
namespace {

// Virtual times may wrap, after years; their differences stay small.
[[nodiscard]] bool before(u64 a, u64 b) {
    return static_cast<i64>(a - b) < 0;
}

}  // namespace

Result<> RunQueue::add(Runnable& runnable, u64 now) {
    if (runnable.queued_) return fail("runnable {} is in a queue already", runnable.id());
    if (!queue_.push_back(&runnable)) return fail("a core runs at most {} runnables", max_runnables);
    runnable.queued_ = true;
    runnable.state_ = Runnable::State::blocked;
    runnable.virtual_time_ = floor_;
    runnable.period_start_ = now;
    runnable.period_used_ = 0;
    return {};
}

void RunQueue::remove(Runnable& runnable, u64 now) {
    for (usize i = 0; i < queue_.size(); ++i) {
        if (queue_[i] != &runnable) continue;
        block(runnable, now);
        if (current_ == &runnable) current_ = nullptr;
        queue_.erase(i);
        runnable.queued_ = false;
        return;
    }
}

// What the current one has run since the last call is on its account.
void RunQueue::charge(u64 now) {
    const u64 ran = now > charged_until_ ? now - charged_until_ : 0;
    if (now > charged_until_) charged_until_ = now;
    if (current_ == nullptr || current_->state_ != Runnable::State::runnable) return;
    current_->run_time_ += ran;
    current_->virtual_time_ += to_virtual(ran, *current_);
    if (current_->cap_) current_->period_used_ += ran;
}

void RunQueue::begin_period(Runnable& runnable, u64 now) {
    if (!runnable.cap_ || now < runnable.period_start_) return;
    const u64 periods = (now - runnable.period_start_) / runnable.cap_->period;
    if (periods == 0) return;
    runnable.period_start_ += periods * runnable.cap_->period;
    // Each period pays for one quota of what was used; what was left unused is lost.
    const u128 paid = static_cast<u128>(periods) * runnable.cap_->quota;
    runnable.period_used_ =
        paid >= runnable.period_used_ ? 0 : runnable.period_used_ - static_cast<u64>(paid);
}

bool RunQueue::is_throttled(const Runnable& runnable) {
    return runnable.cap_ && runnable.period_used_ >= runnable.cap_->quota;
}

// Who slept long, or was held back by its cap, has a claim to run soon, but not to make up for all of it.
void RunQueue::catch_up(Runnable& runnable) const {
    const u64 least = floor_ - to_virtual(granularity_, runnable);
    if (before(runnable.virtual_time_, least)) runnable.virtual_time_ = least;
}

bool RunQueue::wake(Runnable& runnable, u64 now) {
    if (!runnable.queued_ || runnable.state_ == Runnable::State::runnable) return false;
    charge(now);
    runnable.state_ = Runnable::State::runnable;
    ++runnable_count_;
    catch_up(runnable);
    begin_period(runnable, now);
    if (is_throttled(runnable)) return false;
    if (current_ == nullptr || current_->state_ != Runnable::State::runnable) return true;
    return before(runnable.virtual_time_, current_->virtual_time_);
}

void RunQueue::block(Runnable& runnable, u64 now) {
    if (!runnable.queued_ || runnable.state_ == Runnable::State::blocked) return;
    charge(now);
    runnable.state_ = Runnable::State::blocked;
    --runnable_count_;
}

u64 RunQueue::slice_of(const Runnable& runnable, u64 weights) const {
    const u64 share = static_cast<u64>(static_cast<u128>(latency_) * runnable.weight_ / weights);
    return share > granularity_ ? share : granularity_;
}

RunQueue::Choice RunQueue::pick(u64 now) {
    charge(now);
    Runnable* best = nullptr;
    u64 weights = 0;
    u64 next_refill = forever;
    usize contenders = 0;
    for (Runnable* runnable : queue_) {
        if (runnable->state_ != Runnable::State::runnable) continue;
        const bool was_throttled = is_throttled(*runnable);
        begin_period(*runnable, now);
        if (is_throttled(*runnable)) {
            const u64 refill = runnable->period_start_ + runnable->cap_->period;
            if (refill < next_refill) next_refill = refill;
            continue;
        }
        if (was_throttled) catch_up(*runnable);
        ++contenders;
        weights += runnable->weight_;
        if (best == nullptr || before(runnable->virtual_time_, best->virtual_time_)) best = runnable;
    }
    current_ = best;
    if (best == nullptr) return {.next = nullptr, .until = next_refill};
    if (before(floor_, best->virtual_time_)) floor_ = best->virtual_time_;

    Choice choice{.next = best, .until = next_refill};
    const auto limit = [&](u64 ticks) {
        const u64 end = ticks < forever - now ? now + ticks : forever;
        if (end < choice.until) choice.until = end;
    };
    if (contenders > 1) limit(slice_of(*best, weights));
    if (best->cap_) limit(best->cap_->quota - best->period_used_);
    return choice;
}

}  // namespace bulkhead
