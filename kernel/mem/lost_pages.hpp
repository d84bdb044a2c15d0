// Pages of memory whose content the hardware has lost: noted by whichever core is told, in any context, and
// taken by the one that knows whose they are.
#pragma once

#include <atomic>
#include <optional>

#include "kernel/base/types.hpp"

namespace bulkhead {

struct LostPage {
    HostPhysical page{};
    u32 bank = 0;    // of the machine-check registers that told of it
    u64 status = 0;  // and what it held
};

class LostPages {
  public:
    static constexpr usize capacity = 8;

    // Any core (0..63). False: the core has hit this page before and nobody has taken it yet, so it does so
    // again and again; or there is no room.
    [[nodiscard]] bool note(const LostPage& lost, u32 core) {
        const u64 bit = u64{1} << (core % 64);
        for (Entry& entry : entries_) {
            if (entry.state.load(std::memory_order_acquire) != State::noted) continue;
            if (entry.page.load() != lost.page.raw()) continue;
            return (entry.cores.fetch_or(bit) & bit) == 0;
        }
        for (Entry& entry : entries_) {
            State free = State::free;
            if (!entry.state.compare_exchange_strong(free, State::busy)) continue;
            entry.page.store(lost.page.raw());
            entry.bank = lost.bank;
            entry.status = lost.status;
            entry.cores.store(bit);
            entry.state.store(State::noted, std::memory_order_release);
            count_.fetch_add(1, std::memory_order_release);
            return true;
        }
        return false;
    }

    // One core only. Each page once, but for one that is hit again afterwards.
    [[nodiscard]] std::optional<LostPage> take() {
        if (count_.load(std::memory_order_acquire) == 0) return std::nullopt;
        for (Entry& entry : entries_) {
            if (entry.state.load(std::memory_order_acquire) != State::noted) continue;
            const LostPage lost{
                .page = HostPhysical(entry.page.load()), .bank = entry.bank, .status = entry.status};
            count_.fetch_sub(1, std::memory_order_relaxed);
            entry.state.store(State::free, std::memory_order_release);
            return lost;
        }
        return std::nullopt;
    }

    // Whether one within the given range is noted. Any core.
    [[nodiscard]] bool any_in(HostPhysical start, u64 length) const {
        if (count_.load(std::memory_order_acquire) == 0) return false;
        for (const Entry& entry : entries_) {
            if (entry.state.load(std::memory_order_acquire) != State::noted) continue;
            const HostPhysical page(entry.page.load());
            if (page >= start && page - start < length) return true;
        }
        return false;
    }

  private:
    enum class State : u8 { free, busy, noted };
    struct Entry {
        std::atomic<State> state{State::free};
        std::atomic<u64> page{0};
        std::atomic<u64> cores{0};  // that have hit it
        u32 bank = 0;
        u64 status = 0;
    };

    Entry entries_[capacity];
    std::atomic<u32> count_{0};
};

}  // namespace bulkhead
