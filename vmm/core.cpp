#include "vmm/core.hpp"

#include <algorithm>
#include <bit>

namespace bulkhead {
namespace {

// Of a second: the span in which everyone on a core gets a turn, and the shortest turn.
constexpr u64 latency_parts = 50;
constexpr u64 granularity_parts = 500;

}  // namespace

Core::Core(HostServices& host, const PhysicalMachine& machine, unsigned number)
    : host_(host),
      machine_(machine),
      number_(number),
      queue_(machine.tsc_hz() / latency_parts, machine.tsc_hz() / granularity_parts, number) {}

Result<> Core::add(VcpuThread& thread) {
    if (!threads_.push_back(&thread))
        return fail("core {} has {} vCPUs, and no room for more", number_, size());
    if (auto added = queue_.add(*thread.runnable, machine_.tsc()); !added) {
        threads_.pop_back();
        return added;
    }
    thread.blocked = true;
    thread.finished = false;
    thread.wake_at = 0;
    thread.core.store(number_, std::memory_order_release);
    return {};
}

void Core::remove(VcpuThread& thread) {
    if (loaded_ == &thread) unload();
    queue_.remove(*thread.runnable, machine_.tsc());
    for (usize i = 0; i < threads_.size(); ++i) {
        if (threads_[i] == &thread) threads_.erase(i);
    }
    thread.core.store(VcpuThread::no_core, std::memory_order_release);
    // Its compartment may be about to go.
    host_.enter_address_space(host_.kernel_table().root());
}

void Core::load(VcpuThread& thread) {
    enter(*thread.slot);
    if (loaded_ == &thread) return;
    unload();
    enter(*thread.slot);
    thread.vcpu->backend().load();
    loaded_ = &thread;
}

void Core::unload() {
    if (loaded_ == nullptr) return;
    enter(*loaded_->slot);
    loaded_->vcpu->backend().save();
    loaded_ = nullptr;
}

VcpuThread& Core::thread_of(const Runnable& runnable) const {
    for (VcpuThread* thread : threads_) {
        if (&*thread->runnable == &runnable) return *thread;
    }
    __builtin_unreachable();
}

// What others want of the vCPUs here, and whose time has come.
void Core::wake_sleepers(u64 now) {
    for (VcpuThread* thread : threads_) {
        const bool signalled = thread->signalled.load() && thread->signalled.exchange(false);
        if (!thread->blocked || thread->finished) continue;
        if (!signalled && thread->wake_at > now) continue;
        thread->blocked = false;
        (void)queue_.wake(*thread->runnable, now);
    }
}

u64 Core::next_wake() const {
    u64 earliest = never;
    for (const VcpuThread* thread : threads_) {
        if (thread->blocked && !thread->finished) earliest = std::min(earliest, thread->wake_at);
    }
    return earliest;
}

bool Core::turn(u64 limit) {
    const u64 now = machine_.tsc();
    wake_sleepers(now);
    const RunQueue::Choice choice = queue_.pick(now);
    for (u64 cores = choice.kick; cores != 0; cores &= cores - 1)
        host_.kick(static_cast<unsigned>(std::countr_zero(cores)));
    next_turn_ = std::min(choice.until, next_wake());
    if (choice.next == nullptr) return false;
    run(thread_of(*choice.next), std::min(next_turn_, limit));
    return true;
}

// Nobody waits for this core while the vCPU sleeps on it: no other vCPU, not the console, and no account of
// its VM's time, which sleep must not be charged to.
bool Core::has_core_to_itself(const VcpuThread& thread) const {
    return number_ != 0 && threads_.size() == 1 && thread.slot->bandwidth.quota() == 0 &&
           !thread.slot->gang.is_enabled();
}

void Core::run(VcpuThread& thread, u64 until) {
    load(thread);
    thread.vcpu->set_alone(has_core_to_itself(thread));
    host_.before_guest();
    running_.store(&thread, std::memory_order_relaxed);
    const Vcpu::RunResult result = thread.vcpu->run(until);
    running_.store(nullptr, std::memory_order_relaxed);
    const u64 now = machine_.tsc();
    switch (result) {
        case Vcpu::RunResult::yielded: break;
        case Vcpu::RunResult::blocked:
            thread.blocked = true;
            thread.wake_at = thread.vcpu->wake_deadline();
            queue_.block(*thread.runnable, now);
            break;
        case Vcpu::RunResult::stopped:
            thread.blocked = thread.finished = true;
            queue_.block(*thread.runnable, now);
            thread.slot->stop_pending.store(true, std::memory_order_release);
            if (number_ != 0) host_.kick(0);
            break;
    }
}

}  // namespace bulkhead
