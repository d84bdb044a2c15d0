// Memory for page tables that keeps a history and watches the rules at every step.
#pragma once

#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernel/mem/page_table.hpp"

namespace bulkhead {

class FakeTableMemory final : public TableMemory {
  public:
    explicit FakeTableMemory(const PagingFormat& format) : format_(format) {}

    Result<HostPhysical> allocate() override {
        if (allocations_++ == fail_at) return fail("out of tables");
        const HostPhysical address(next_);
        next_ += page_size;
        auto table = std::make_unique<std::array<u64, 512>>();
        table->fill(0xFFFF'FFFF'FFFF'FFFF);  // "of any content"
        tables_[address.raw()] = std::move(table);
        return address;
    }
    void free(HostPhysical table) override {
        REQUIRE(tables_.count(table.raw()) == 1);
        for (const HostPhysical root : roots) {
            if (table != root) CHECK(reachable(root).count(table.raw()) == 0);
        }
        if (!roots.empty() && was_linked_.count(table.raw()) != 0) CHECK(flushed_since_change_);
        // Not a trace of a present entry that hardware could still follow.
        if (!roots.empty() && was_linked_.count(table.raw()) != 0) {
            for (const u64 entry : *tables_[table.raw()])
                if (format_.is_present(entry)) FAIL_CHECK("a freed table still maps");
        }
        was_linked_.erase(table.raw());
        tables_.erase(table.raw());
    }
    u64* access(HostPhysical table) override {
        const auto found = tables_.find(table.raw());
        if (found == tables_.end()) FAIL("access to a page that is no table");
        return found->second->data();
    }
    void flush(u64 address, u64 length) override {
        flushes.push_back({address, length});
        flushed_since_change_ = true;
    }

    // Called before each operation under test.
    void begin() {
        flushed_since_change_ = false;
        flushes.clear();
        allocations_ = 0;
        was_linked_.clear();
        for (const HostPhysical root : roots) was_linked_.merge(reachable(root));
    }
    [[nodiscard]] usize live() const { return tables_.size(); }
    [[nodiscard]] u64 allocations() const { return allocations_; }

    // All tables below `root`, itself included; each must be live and reached once.
    std::set<u64> reachable(HostPhysical root) {
        std::set<u64> found;
        collect(root, 4, found);
        return found;
    }

    std::vector<HostPhysical> roots;
    std::vector<std::pair<u64, u64>> flushes;
    u64 fail_at = ~u64{0};

  private:
    void collect(HostPhysical table, unsigned level, std::set<u64>& found) {
        if (tables_.count(table.raw()) != 1) FAIL("a linked page is no table");
        if (!found.insert(table.raw()).second) FAIL("a table is linked twice");
        if (level == 1) return;
        for (const u64 entry : *tables_[table.raw()]) {
            if (format_.is_present(entry) && !format_.is_leaf(entry, level)) {
                collect(format_.table_address(entry), level - 1, found);
            }
        }
    }

    const PagingFormat& format_;
    std::map<u64, std::unique_ptr<std::array<u64, 512>>> tables_;
    std::set<u64> was_linked_;
    u64 next_ = 0x10'0000;
    u64 allocations_ = 0;
    bool flushed_since_change_ = false;
};

}  // namespace bulkhead
