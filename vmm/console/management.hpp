// What the console asks of the hypervisor. Commands act through this interface alone; tests give them a fake.
// All of it is called on the core that serves the console.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/result.hpp"
#include "kernel/base/types.hpp"
#include "kernel/log/log_ring.hpp"
#include "kernel/mem/compartment.hpp"
#include "vmm/config/config.hpp"
#include "vmm/console/console_ring.hpp"
#include "vmm/cpu_state.hpp"
#include "vmm/exit_records.hpp"
#include "vmm/exit_statistics.hpp"
#include "vmm/integrity.hpp"
#include "vmm/mitigations.hpp"

namespace bulkhead {

// Stays the same for a VM's life and is not given to another one.
using VmId = Number<struct VmIdTag, u16>;

enum class VmState : u8 {
    off,        // known, not created
    running,    // on a core
    blocked,    // halted: waiting for an interrupt
    paused,     // by the operator
    shut_down,  // the guest turned itself off; preserved
    crashed,    // stopped by its own fault; preserved
    dying,      // being destroyed
    refused,    // its configuration is wrong
};

[[nodiscard]] std::string_view name_of(VmState state);
// The state as `xl list` shows it: r-----, -b----, --p---, ---s--, ----c-, -----d; ------ for the others.
[[nodiscard]] std::string_view flags_of(VmState state);

struct VmSummary {
    VmId id;
    FixedString<31> name;
    VmState state = VmState::off;
    unsigned vcpus = 0;
    u64 memory_bytes = 0;
    u64 cpu_nanoseconds = 0;  // processor time used, by all its vCPUs
    // A vCPU has its core to itself and sleeps there in guest mode, so that its sleep counts as time used.
    bool sleep_counts = false;
};

// A triple fault, or what could not be emulated: where the vCPU was that stopped the VM.
struct VmFault {
    FixedString<100> what;  // the guest may have had a say in it
    unsigned vcpu = 0;
    u64 uptime_nanoseconds = 0;
    u16 cs = 0;
    u64 rip = 0, rsp = 0, rflags = 0, cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0;
};

struct VmDetails {
    VmSummary summary;
    const VmConfig* config = nullptr;  // what it was made from; null when there is none
    u64 uptime_nanoseconds = 0;        // since its last power-on
    u64 resets = 0;
    FixedString<200> reason;  // why it stopped, if it did; may hold text that the guest had a say in
    std::optional<VmFault>
        fault;  // the last since the operator started it: kept when the VM starts anew by itself
};

// One virtual processor.
struct VcpuSummary {
    static constexpr unsigned no_core = ~0U;
    enum class State : u8 { running, ready, blocked, waiting_for_sipi, paused, halted_for_good, off };

    unsigned number = 0;
    State state = State::off;
    unsigned core = no_core;  // where it runs
    CpuSet affinity;          // where it may run
    u64 cpu_nanoseconds = 0;  // processor time used: in the guest and on its exits
    u64 exits = 0;
};
[[nodiscard]] std::string_view name_of(VcpuSummary::State state);

// How far apart the vCPUs of a gang started, over all times that at least two of them did.
struct GangSummary {
    u64 starts = 0;
    u64 last_nanoseconds = 0, mean_nanoseconds = 0, greatest_nanoseconds = 0;
};

// What `regs` shows: a vCPU as of its last exit.
struct VcpuRegisters {
    u64 gprs[16] = {};  // in the order of their encoding: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8..r15
    u64 rip = 0, rflags = 0, cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0, efer = 0, xcr0 = 0;
    u64 debug[4] = {}, dr6 = 0, dr7 = 0;
    Segment segments[8] = {};  // by SegmentName
    DescriptorTable gdtr{}, idtr{};
    std::string_view last_exit;
    u64 last_code = 0;
};

// One physical core.
struct CoreSummary {
    unsigned number = 0;
    u32 apic_id = 0;
    bool online = false;
    FixedString<120> reason;  // why it is not
    bool dedicated = false;   // to one vCPU: no host tick
    unsigned vcpus = 0;       // that run on it
    u64 busy_nanoseconds = 0, idle_nanoseconds = 0;
    u64 interrupts = 0, kicks = 0;
};

struct MemorySummary {
    u64 total_bytes = 0;  // that VMs may have
    u64 free_bytes = 0;
    u64 largest_free_run_bytes = 0;
    u64 hypervisor_bytes = 0;  // its image, data and tables
};
// What a VM has of it.
struct VmMemorySummary {
    u64 ram_bytes = 0;
    u64 overhead_bytes = 0;  // its arena: tables, models, rings
    u64 overhead_used_bytes = 0;
    FixedVector<PhysicalRange, 12> ranges;  // of machine memory; the first is the arena
};

// All page tables, as they are: the kernel's, and each VM's, those included that its guest goes through.
struct TableCheck {
    u64 tables = 0;
    u64 mappings = 0;  // in them
    u64 leaks = 0;     // of these: to memory of another VM, or in the kernel's: of any
};
// What code in one address space reaches of a VM's memory, tried on each core that serves the former.
struct ReachCheck {
    unsigned cores = 0;
    u64 loads = 0;           // that were tried: all page-faulted, if not `reached`
    bool reached = false;    // one did not
    unsigned core = 0;       // there,
    HostPhysical address{};  // from this memory
};

// A text screen, in printable ASCII. Large: not for a stack.
struct ScreenText {
    static constexpr unsigned max_columns = 132, max_rows = 60;
    unsigned columns = 0, rows = 0;
    bool cursor_visible = false;
    unsigned cursor_column = 0, cursor_row = 0;
    char characters[max_rows][max_columns] = {};
};

struct HostInfo {
    std::string_view version;  // of Bulkhead
    std::string_view backend;  // "VT-x", "AMD-V"
    unsigned cpus = 0;
    u64 memory_bytes = 0;
    // Now: the machine's own clock (seconds since 1970), its time-stamp counter and what that counts a
    // second.
    u64 wall_clock = 0;
    u64 tsc = 0;
    u64 tsc_hz = 0;
};

class Management {
  public:
    [[nodiscard]] virtual HostInfo host() const = 0;
    // Nanoseconds since boot, by the log's clock: now, or when the time-stamp counter stood at `tsc`. Asked
    // for often, so worth more than these defaults, which go by host().
    [[nodiscard]] virtual u64 nanoseconds() const { return nanoseconds_at(host().tsc); }
    [[nodiscard]] virtual u64 nanoseconds_at(u64 tsc) const;

    // What was decided at boot: cores, memory ranges, modules and devices of every VM, and why anything was
    // refused. Lines that end with \n; nothing where there is no plan.
    virtual void print_plan(Sink& out) const = 0;

    // VMs by their place in the list, 0 .. vm_count() - 1. False when `index` is past its end by now.
    [[nodiscard]] virtual usize vm_count() const = 0;
    [[nodiscard]] virtual bool summary(usize index, VmSummary& out) const = 0;
    // False when the VM is gone. So for all that follows.
    [[nodiscard]] virtual bool details(VmId vm, VmDetails& out) const = 0;
    [[nodiscard]] virtual bool exit_statistics(VmId vm, ExitStatistics& out) const = 0;  // of all its vCPUs
    // Has the VM's last exits kept for so long. It is not interrupted for that: a vCPU begins at its next
    // exit.
    virtual void watch_exits(VmId /*vm*/, u64 /*nanoseconds*/) {}
    // Those kept, of each vCPU the last ones first. Returns how many.
    [[nodiscard]] virtual usize recent_exits(VmId /*vm*/, std::span<ExitRecord> /*out*/) const { return 0; }

    [[nodiscard]] virtual Result<> start(VmId vm) = 0;
    [[nodiscard]] virtual Result<> pause(VmId vm) = 0;
    [[nodiscard]] virtual Result<> unpause(VmId vm) = 0;
    [[nodiscard]] virtual Result<> reset(VmId vm) = 0;
    [[nodiscard]] virtual Result<> shutdown(VmId vm) = 0;  // asks the guest; it may take its time
    [[nodiscard]] virtual Result<> destroy(VmId vm) = 0;

    // Makes a VM known by a config snippet: one [vm.NAME] table, as in the config file. It is started if its
    // `autostart` says so. A VM of that name must be off; its definition is replaced. `problems` gets a line
    // for each thing wrong, with line and column.
    [[nodiscard]] virtual Result<> create(std::string_view snippet, Sink& problems) = 0;
    // The text of a boot module, for create(); copied to `out`. Fails when there is none or it is too long.
    [[nodiscard]] virtual Result<usize> read_module(std::string_view name, std::span<char> out) = 0;
    [[nodiscard]] virtual Result<> rename(VmId vm, std::string_view name) = 0;
    // A key of the config file, with its value as in the file (a string without its quotes will do):
    // cpu.weight, cpu.max, cpu.gang, cpuset.cpus, on_reboot, on_crash and autostart at any time; all the
    // others while the VM is off.
    [[nodiscard]] virtual Result<> set(VmId vm, std::string_view key, std::string_view value) = 0;

    // False when there is no such vCPU.
    [[nodiscard]] virtual bool vcpu_summary(VmId vm, unsigned vcpu, VcpuSummary& out) const = 0;
    [[nodiscard]] virtual Result<> pin_vcpu(VmId vm, unsigned vcpu, const CpuSet& cores) = 0;
    [[nodiscard]] virtual Result<> registers(VmId vm, unsigned vcpu, VcpuRegisters& out) = 0;
    // Guest memory as the vCPU sees it at a linear address, or at a guest-physical one. Returns how many
    // bytes from `address` on could be read; fails, saying why, when not even the first.
    enum class AddressKind : u8 { linear, physical };
    [[nodiscard]] virtual Result<usize> read_memory(VmId vm, unsigned vcpu, AddressKind kind, u64 address,
                                                    MutableBytes out) = 0;
    [[nodiscard]] virtual Result<> screen(VmId vm, ScreenText& out) = 0;
    // Keys pressed or released on the VM's keyboard, in scan code set 2: all or none. False when its buffer
    // is full (try again later) or the VM is gone.
    [[nodiscard]] virtual bool send_scan_codes(VmId vm, std::span<const u8> codes) = 0;

    // Cores by number, 0 .. count - 1. False past the end.
    [[nodiscard]] virtual bool core_summary(unsigned core, CoreSummary& out) const = 0;
    [[nodiscard]] virtual MemorySummary memory() const = 0;
    [[nodiscard]] virtual bool vm_memory(VmId vm, VmMemorySummary& out) const = 0;

    // That no VM's memory is in reach of another. One line on `leaks` for each of the first mappings that
    // should not be.
    [[nodiscard]] virtual Result<> check_tables(TableCheck& out, Sink& leaks) = 0;
    // Loads from the memory of `owner`, a byte of each 2 MiB, in the address space of `viewer`, or in the
    // kernel's own (nullopt) on every core. Fails when one of the VMs has no memory now, and when a core does
    // not answer or cannot even read what it may.
    [[nodiscard]] virtual Result<> check_reach(std::optional<VmId> viewer, VmId owner, ReachCheck& out) = 0;

    // How closely together the vCPUs of a gang start. False when the VM is none.
    [[nodiscard]] virtual bool gang_summary(VmId vm, GangSummary& out) const = 0;

    [[nodiscard]] virtual Integrity integrity() const { return {}; }

    // What the processor's speculation is said to be; and what is done about it (vmm/mitigations.hpp).
    [[nodiscard]] virtual SpeculationFacts speculation_facts() const { return {}; }
    [[nodiscard]] virtual Mitigations mitigations() const { return {}; }
    [[nodiscard]] virtual u64 barriers_issued(unsigned core, Barrier barrier) const {
        (void)core, (void)barrier;
        return 0;
    }

    // The oldest log entry from `sequence` on.
    [[nodiscard]] virtual bool read_log(u64 sequence, LogEntry& entry) = 0;

    // Return only when they fail.
    [[nodiscard]] virtual Result<> reboot() = 0;
    [[nodiscard]] virtual Result<> poweroff() = 0;

    // What the VM's serial port has sent; null when the VM is gone or has no console here. It lies in the
    // VM's compartment: not to be used after any further call of this interface.
    [[nodiscard]] virtual ConsoleRing* console(VmId vm) = 0;
    // A byte for the VM's serial port. False when its FIFO is full: try again later.
    [[nodiscard]] virtual bool send_input(VmId vm, u8 byte) = 0;

  protected:
    ~Management() = default;
};

}  // namespace bulkhead
