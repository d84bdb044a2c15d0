// What the hypervisor above needs of the cores and the machine. The composition root implements it; tests
// give the VM manager a fake.
#pragma once

#include <optional>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/result.hpp"
#include "kernel/mem/layout.hpp"
#include "kernel/mem/lost_pages.hpp"
#include "kernel/mem/page_table.hpp"
#include "vmm/console/management.hpp"

namespace bulkhead {

// Something to do on a certain core.
class CoreWork {
  public:
    virtual void run() = 0;

  protected:
    ~CoreWork() = default;
};

// Likewise, without a class for each kind of work.
template <class Function>
class WorkOf final : public CoreWork {
  public:
    explicit WorkOf(Function function) : function_(function) {}
    void run() override { function_(); }

  private:
    Function function_;
};

struct CoreInfo {
    u32 apic_id = 0;
    bool online = false;
    FixedString<120> reason{};  // why it is not
    u64 interrupts = 0;         // that it took in the host
    u64 kicks = 0;              // of these: from other cores
};

class HostServices {
  public:
    // On this core.
    virtual void enter_address_space(HostPhysical root) = 0;
    // The kernel's own address space, which shows no VM's memory ...
    [[nodiscard]] virtual const HostPageTable& kernel_table() const = 0;
    // ... except what is mapped here for a moment: at window() + physical. Page-aligned. Core 0 only.
    [[nodiscard]] virtual Result<> map(const PhysicalRange& range, Permissions permissions) = 0;
    [[nodiscard]] virtual Result<> unmap(const PhysicalRange& range) = 0;
    // Whether a load from window() + physical takes a page fault at that address, on this core in the address
    // space it is in. For tests of the isolation: whoever cannot tell says no.
    [[nodiscard]] virtual bool page_faults(HostPhysical) const { return false; }
    // Where the window of a VM's own memory begins: arena_window, but in host tests, which cannot map there.
    [[nodiscard]] virtual u64 window() const { return arena_window; }
    [[nodiscard]] virtual unsigned max_page_level()
        const = 0;  // 3 where the processor has 1 GiB pages, else 2

    // Cores have the numbers 0 .. core_count() - 1, those included that did not start. Core 0 booted; it
    // serves the console and manages the VMs.
    [[nodiscard]] virtual unsigned core_count() const { return 1; }
    [[nodiscard]] virtual CoreInfo core_info(unsigned core) const {
        return {.apic_id = core, .online = true};
    }
    [[nodiscard]] virtual unsigned this_core() const { return 0; }
    // Makes the core leave its guest, or its halt, soon after. Any core; cheap, and harmless when in vain.
    virtual void kick(unsigned) {}
    // What interrupt waits on this core for interrupts to be enabled: its timer's (`tick`), a kick, or
    // another.
    [[nodiscard]] virtual HostCause waiting_interrupt() const { return HostCause::device; }
    // Runs `work` on that core, outside any guest and with interrupts disabled, and returns when it is done.
    // On core 0 only, and not from within such work. Fails when the core does not answer within a second.
    [[nodiscard]] virtual Result<> run_on(unsigned core, CoreWork& work) {
        (void)core;
        work.run();
        return {};
    }

    // A machine check has ended a guest's turn on this core, in whatever address space it is. True if the
    // guest can go on. What has been lost is among take_lost_page() from then on.
    [[nodiscard]] virtual bool survive_machine_check() { return false; }
    // Whether memory of that range has been lost and is yet to be taken. Any core.
    [[nodiscard]] virtual bool lost_memory_in(HostPhysical, u64) const { return false; }
    // Memory that the hardware has lost: each page once. Core 0 only, and often.
    [[nodiscard]] virtual std::optional<LostPage> take_lost_page() { return std::nullopt; }
    // It is neither a VM's nor free: the hypervisor's own, or nobody's.
    virtual void own_page_lost(const LostPage&) {}
    // A guest is about to run on this core, in the address space it is in: flushes what another VM, or the
    // kernel's work for one, may have left in the core, if anything (vmm/guest_switch.hpp).
    virtual void before_guest() {}
    [[nodiscard]] virtual SpeculationFacts speculation_facts() const { return {}; }
    [[nodiscard]] virtual Mitigations mitigations() const { return {}; }
    // How often the barrier was issued on that core.
    [[nodiscard]] virtual u64 barriers_issued(unsigned core, Barrier barrier) const {
        (void)core, (void)barrier;
        return 0;
    }

    [[nodiscard]] virtual HostInfo info() const = 0;
    // What the hypervisor itself takes of the machine's memory, in bytes.
    [[nodiscard]] virtual u64 own_memory() const { return 0; }
    // All but the free units, which are the manager's to know.
    [[nodiscard]] virtual Integrity integrity() const { return {}; }
    [[nodiscard]] virtual Result<> reboot() = 0;
    [[nodiscard]] virtual Result<> power_off() = 0;

  protected:
    ~HostServices() = default;
};

}  // namespace bulkhead
