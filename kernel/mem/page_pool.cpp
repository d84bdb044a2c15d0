#include "kernel/mem/page_pool.hpp"

namespace bulkhead {

PagePool::PagePool(HostPhysical start, u64 pages, std::span<u64> bitmap)
    : start_(start),
      pages_(pages < bitmap.size() * 64 ? pages : bitmap.size() * 64),
      free_(pages_),
      bitmap_(bitmap) {
    for (u64& word : bitmap_) word = 0;
}

void PagePool::mark(u64 first, u64 count, bool is_used) {
    for (u64 page = first; page < first + count; ++page) {
        if (is_used) {
            bitmap_[page / 64] |= u64{1} << (page % 64);
        } else {
            bitmap_[page / 64] &= ~(u64{1} << (page % 64));
        }
    }
}

Result<HostPhysical> PagePool::allocate_run(u64 pages, u64 alignment) {
    if (pages == 0 || !is_power_of_two(alignment) || alignment < page_size) {
        return fail("a request for {} pages aligned to {:#x}", pages, alignment);
    }
    if (pages <= free_) {
        while (hint_ < pages_ && used(hint_)) ++hint_;
        const u64 step = alignment / page_size;
        const u64 start_page = start_.raw() / page_size;
        u64 first = (start_page + hint_ + step - 1) / step * step - start_page;
        while (range_within(first, pages, pages_)) {
            u64 length = 0;
            while (length < pages && !used(first + length)) ++length;
            if (length == pages) {
                mark(first, pages, true);
                free_ -= pages;
                return start_ + first * page_size;
            }
            // On from behind the used page.
            first = (start_page + first + length + step) / step * step - start_page;
        }
    }
    return fail("{} contiguous pages wanted, {} of {} free", pages, free_, pages_);
}

Result<> PagePool::free_run(HostPhysical start, u64 pages) {
    if (!start.is_aligned(page_size) || !contains(start) || pages == 0 ||
        !range_within((start - start_) / page_size, pages, pages_)) {
        return fail("{}+{} pages are not of this pool", start, pages);
    }
    const u64 first = (start - start_) / page_size;
    for (u64 page = first; page < first + pages; ++page) {
        if (!used(page)) return fail("page {} is freed but is not allocated", start_ + page * page_size);
    }
    mark(first, pages, false);
    free_ += pages;
    if (first < hint_) hint_ = first;
    return {};
}

void PoolTableMemory::free(HostPhysical table) {
    if (!pool_->free(table)) ++refused_frees_;
}

}  // namespace bulkhead
