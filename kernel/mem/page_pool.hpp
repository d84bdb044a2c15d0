// 4 KiB pages out of one contiguous physical span: the kernel's fixed pool, or part of a VM's arena. Keeps
// its books in a bitmap elsewhere and never touches the pages themselves. Not thread-safe.
#pragma once

#include <span>

#include "kernel/base/result.hpp"
#include "kernel/mem/page_table.hpp"

namespace bulkhead {

class PagePool {
  public:
    [[nodiscard]] static constexpr usize bitmap_words(u64 pages) {
        return static_cast<usize>((pages + 63) / 64);
    }

    PagePool() = default;  // an empty pool
    // `start` is page-aligned; `bitmap` has at least bitmap_words(pages) words, lives as long as the pool and
    // is overwritten here. A shorter bitmap shortens the pool.
    PagePool(HostPhysical start, u64 pages, std::span<u64> bitmap);

    [[nodiscard]] Result<HostPhysical> allocate() { return allocate_run(1); }
    // `pages` contiguous pages whose address is a multiple of `alignment`, a power of two not below 4 KiB.
    [[nodiscard]] Result<HostPhysical> allocate_run(u64 pages, u64 alignment = page_size);

    // Fail, with nothing changed, unless all of it is allocated and within the pool.
    [[nodiscard]] Result<> free(HostPhysical page) { return free_run(page, 1); }
    [[nodiscard]] Result<> free_run(HostPhysical start, u64 pages);

    [[nodiscard]] bool contains(HostPhysical address) const {
        return address >= start_ && address - start_ < pages_ * page_size;
    }
    [[nodiscard]] u64 total_pages() const { return pages_; }
    [[nodiscard]] u64 free_pages() const { return free_; }
    [[nodiscard]] HostPhysical start() const { return start_; }

  private:
    [[nodiscard]] bool used(u64 page) const { return (bitmap_[page / 64] >> (page % 64) & 1) != 0; }
    void mark(u64 first, u64 count, bool used);

    HostPhysical start_{};
    u64 pages_ = 0;
    u64 free_ = 0;
    u64 hint_ = 0;  // no page below it is free
    std::span<u64> bitmap_{};
};

// Tables out of a pool that is mapped at `window` + physical address (image_window or arena_window). What
// happens on flush() depends on who uses the tables, so it is left to the heir.
class PoolTableMemory : public TableMemory {
  public:
    PoolTableMemory(PagePool& pool, u64 window) : pool_(&pool), window_(window) {}

    Result<HostPhysical> allocate() override { return pool_->allocate(); }
    void free(HostPhysical table) override;
    u64* access(HostPhysical table) override { return reinterpret_cast<u64*>(window_ + table.raw()); }
    // Frees that the pool refused, each a defect: 0.
    [[nodiscard]] u64 refused_frees() const { return refused_frees_; }

  protected:
    ~PoolTableMemory() = default;

  private:
    PagePool* pool_;
    u64 window_;
    u64 refused_frees_ = 0;
};

}  // namespace bulkhead
