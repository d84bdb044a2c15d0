// What the console asks of the hypervisor. Commands act through this interface alone; tests give them a fake.
// All of it is called on the core that serves the console.
#pragma once

#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/result.hpp"
#include "kernel/base/types.hpp"
#include "kernel/log/log_ring.hpp"
#include "vmm/config/config.hpp"
#include "vmm/console/console_ring.hpp"
#include "vmm/exit_statistics.hpp"

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
};

struct VmDetails {
    VmSummary summary;
    const VmConfig* config = nullptr;  // what it was made from; null when there is none
    u64 uptime_nanoseconds = 0;        // since its last power-on
    u64 resets = 0;
    FixedString<200> reason;  // why it stopped, if it did; may hold text that the guest had a say in
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

    // VMs by their place in the list, 0 .. vm_count() - 1. False when `index` is past its end by now.
    [[nodiscard]] virtual usize vm_count() const = 0;
    [[nodiscard]] virtual bool summary(usize index, VmSummary& out) const = 0;
    // False when the VM is gone. So for all that follows.
    [[nodiscard]] virtual bool details(VmId vm, VmDetails& out) const = 0;
    [[nodiscard]] virtual bool exit_statistics(VmId vm, ExitStatistics& out) const = 0;  // of all its vCPUs

    [[nodiscard]] virtual Result<> start(VmId vm) = 0;
    [[nodiscard]] virtual Result<> pause(VmId vm) = 0;
    [[nodiscard]] virtual Result<> unpause(VmId vm) = 0;
    [[nodiscard]] virtual Result<> reset(VmId vm) = 0;
    [[nodiscard]] virtual Result<> shutdown(VmId vm) = 0;  // asks the guest; it may take its time
    [[nodiscard]] virtual Result<> destroy(VmId vm) = 0;

    // The oldest log entry from `sequence` on.
    [[nodiscard]] virtual bool read_log(u64 sequence, LogEntry& entry) = 0;

    // Return only when they fail.
    [[nodiscard]] virtual Result<> reboot() = 0;
    [[nodiscard]] virtual Result<> poweroff() = 0;

    // What the VM's serial port has sent; null when the VM is gone or has no console here.
    [[nodiscard]] virtual ConsoleRing* console(VmId vm) = 0;
    // A byte for the VM's serial port. False when its FIFO is full: try again later.
    [[nodiscard]] virtual bool send_input(VmId vm, u8 byte) = 0;

  protected:
    ~Management() = default;
};

}  // namespace bulkhead
