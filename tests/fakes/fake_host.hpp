// The core under the VM manager, with address spaces that hold: what the current page tables do not map at
// the arena window, no access reaches. Physical memory is seen twice: by the test, in full, and through the
// window, whose protection is set by walking the tables that were entered.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "vmm/manager.hpp"

namespace bulkhead {

class FakeHost final : public HostServices {
  public:
    explicit FakeHost(u64 memory_bytes)
        : bytes_(memory_bytes),
          table_memory_(*this),
          kernel_(host_paging, table_memory_, make_kernel_root()) {
        REQUIRE(kernel_.pin_top_slot(top_slot(image_window)));
        REQUIRE(kernel_.pin_top_slot(top_slot(device_window)));
        current_ = kernel_.root();
    }
    FakeHost(const FakeHost&) = delete;
    FakeHost& operator=(const FakeHost&) = delete;
    ~FakeHost() {
        ::munmap(window_, bytes_);
        ::munmap(view_, bytes_);
    }

    void enter_address_space(HostPhysical root) override {
        ++switches;
        if (root == current_) return;
        current_ = root;
        if (root != kernel_.root()) last_vm_root = root;
        show();
    }
    void before_guest() override { guests.push_back(current_); }
    [[nodiscard]] const HostPageTable& kernel_table() const override { return kernel_; }
    [[nodiscard]] Result<> map(const PhysicalRange& range, Permissions permissions) override {
        if (maps++ == fail_map_at) return fail("the kernel has no page for a table");
        auto mapped =
            kernel_.map(arena_virtual(range.start), range.start, range.length, {.permissions = permissions});
        if (mapped && current_ == kernel_.root()) show();
        return mapped;
    }
    [[nodiscard]] Result<> unmap(const PhysicalRange& range) override {
        auto unmapped = kernel_.unmap(arena_virtual(range.start), range.length);
        if (unmapped && current_ == kernel_.root()) show();
        return unmapped;
    }
    [[nodiscard]] bool page_faults(HostPhysical physical) const override {
        return reads_nothing || !permissions_at(physical.raw()).read;
    }
    [[nodiscard]] Result<> run_on(unsigned, CoreWork& work) override {
        if (core_is_silent) return fail("the core is silent");
        work.run();
        return {};
    }
    [[nodiscard]] bool survive_machine_check() override { return machine_check_survived; }
    [[nodiscard]] bool lost_memory_in(HostPhysical start, u64 length) const override {
        return lost.any_in(start, length);
    }
    [[nodiscard]] std::optional<LostPage> take_lost_page() override { return lost.take(); }
    void own_page_lost(const LostPage& page) override { own_pages_lost.push_back(page.page.raw()); }
    [[nodiscard]] u64 window() const override { return reinterpret_cast<u64>(window_); }
    [[nodiscard]] unsigned max_page_level() const override { return 3; }
    [[nodiscard]] HostInfo info() const override { return {.version = "test", .backend = "fake", .cpus = 1}; }
    [[nodiscard]] unsigned core_count() const override { return cores; }
    [[nodiscard]] unsigned this_core() const override { return core; }
    [[nodiscard]] Result<> reboot() override {
        ++reboots;
        return {};
    }
    [[nodiscard]] Result<> power_off() override {
        ++power_offs;
        return fail("no power button");
    }

    // Physical memory as the test sees it.
    [[nodiscard]] u8* physical(u64 address) const { return static_cast<u8*>(view_) + address; }
    [[nodiscard]] bool in_kernel() const { return current_ == kernel_.root(); }
    // What the current address space lets code do to a physical page.
    [[nodiscard]] Permissions permissions_at(u64 address) const {
        for (const Mapping& mapping : shown_) {
            const u64 start = mapping.address - arena_window;
            if (address >= start && address - start < mapping.size) return mapping.attributes.permissions;
        }
        return {};
    }
    // Reads and changes any tables, the VMs' as well; what it makes is the kernel's.
    [[nodiscard]] TableMemory& tables() { return table_memory_; }
    // Mappings of the arena window that the kernel's own tables have kept.
    [[nodiscard]] usize kernel_mappings() const { return mappings_of(kernel_.root()).size(); }
    [[nodiscard]] usize kernel_tables() const { return kernel_pages_.size(); }

    u64 switches = 0, maps = 0, fail_map_at = ~u64{0};
    u64 tables_made = 0, fail_table_at = ~u64{0};
    bool reads_nothing = false;
    HostPhysical last_vm_root{};  // of the address space that was entered last, but for the kernel's
    unsigned reboots = 0, power_offs = 0;
    unsigned cores = 1, core = 0;  // of the machine, and on which the test is
    LostPages lost;
    bool core_is_silent = false;
    bool machine_check_survived = true;
    std::vector<u64> own_pages_lost;
    std::vector<HostPhysical> guests;  // the address spaces in which guests were about to run

  private:
    // The kernel's tables lie beyond the memory that VMs get.
    static constexpr u64 kernel_pages_start = u64{1} << 40;

    class Tables final : public TableMemory {
      public:
        explicit Tables(FakeHost& host) : host_(host) {}
        Result<HostPhysical> allocate() override {
            if (host_.tables_made++ == host_.fail_table_at) return fail("the kernel has no page left");
            const u64 address = kernel_pages_start + page_size * host_.next_page_++;
            host_.kernel_pages_[address] = std::make_unique<std::array<u64, 512>>();
            return HostPhysical(address);
        }
        void free(HostPhysical table) override { REQUIRE(host_.kernel_pages_.erase(table.raw()) == 1); }
        u64* access(HostPhysical table) override {
            if (table.raw() >= kernel_pages_start) return host_.kernel_pages_.at(table.raw())->data();
            REQUIRE(table.raw() < host_.bytes_);
            return reinterpret_cast<u64*>(host_.physical(table.raw()));
        }
        void flush(u64, u64) override {}

      private:
        FakeHost& host_;
    };

    HostPhysical make_kernel_root() {
        const int file = ::memfd_create("physical memory", 0);
        if (file < 0 || ::ftruncate(file, static_cast<off_t>(bytes_)) != 0) std::abort();
        view_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        window_ = ::mmap(nullptr, bytes_, PROT_NONE, MAP_SHARED, file, 0);
        ::close(file);
        if (view_ == MAP_FAILED || window_ == MAP_FAILED) std::abort();
        return HostPageTable::make_root(host_paging, table_memory_).value();
    }

    [[nodiscard]] std::vector<Mapping> mappings_of(HostPhysical root) const {
        std::vector<Mapping> found;
        HostPageTable(host_paging, table_memory_, root).visit([&](const Mapping& mapping) {
            if (mapping.address < arena_window || mapping.address - arena_window >= arena_window_size)
                return true;
            // The window shows physical memory at its own address, and nothing else.
            REQUIRE(mapping.address - arena_window == mapping.physical.raw());
            REQUIRE(mapping.physical.raw() + mapping.size <= bytes_);
            REQUIRE_FALSE(mapping.attributes.permissions.execute);
            REQUIRE_FALSE(mapping.attributes.global);
            found.push_back(mapping);
            return true;
        });
        return found;
    }

    void show() {
        for (const Mapping& mapping : shown_) protect(mapping, PROT_NONE);
        shown_ = mappings_of(current_);
        for (const Mapping& mapping : shown_) {
            const Permissions& p = mapping.attributes.permissions;
            protect(mapping, (p.read ? PROT_READ : 0) | (p.write ? PROT_WRITE : 0));
        }
    }
    void protect(const Mapping& mapping, int protection) const {
        u8* at = static_cast<u8*>(window_) + (mapping.address - arena_window);
        if (::mprotect(at, mapping.size, protection) != 0) std::abort();
    }

    u64 bytes_;
    void* view_ = nullptr;
    void* window_ = nullptr;
    u64 next_page_ = 0;
    std::map<u64, std::unique_ptr<std::array<u64, 512>>> kernel_pages_;
    mutable Tables table_memory_;
    HostPageTable kernel_;
    HostPhysical current_{};
    std::vector<Mapping> shown_;
};

}  // namespace bulkhead
