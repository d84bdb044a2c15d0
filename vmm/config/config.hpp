// What the operator asked for: the host's settings and the VMs, read from the config file or from a snippet
// of one typed at the console. Everything is checked here that can be checked without looking at the machine;
// whether cores, memory and modules exist is seen when a VM is created.
#pragma once

#include <span>
#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "kernel/base/types.hpp"
#include "kernel/log/log_ring.hpp"
#include "vmm/config/toml.hpp"
#include "vmm/loader/boot_protocol.hpp"

namespace bulkhead {

enum class ComPort : u8 { none, com1, com2, com3, com4 };
enum class PanicAction : u8 { halt, reset };
enum class LifecycleAction : u8 { restart, destroy, preserve };

// The words of the config file.
[[nodiscard]] std::string_view name_of(ComPort value);
[[nodiscard]] std::string_view name_of(PanicAction value);
[[nodiscard]] std::string_view name_of(LifecycleAction value);

// [host]
struct HostConfig {
    ComPort console = ComPort::com1;
    u32 baud = 115200;  // divides 115200
    u8 escape = 0x1D;   // the control character that leaves a VM's console: ctrl-]
    LogLevel log_level = LogLevel::info;
    bool screen = true;  // show the log on the screen too
    PanicAction on_panic = PanicAction::halt;
};

// A set of physical cores.
class CpuSet {
  public:
    static constexpr unsigned max_cpus = 256;

    [[nodiscard]] bool contains(unsigned cpu) const {
        return cpu < max_cpus && (words_[cpu / 64] >> cpu % 64 & 1) != 0;
    }
    void add(unsigned cpu) {
        if (cpu < max_cpus) words_[cpu / 64] |= u64{1} << cpu % 64;
    }
    [[nodiscard]] unsigned count() const;
    [[nodiscard]] bool empty() const { return count() == 0; }
    friend bool operator==(const CpuSet&, const CpuSet&) = default;

  private:
    u64 words_[max_cpus / 64] = {};
};

// Linux's list format (cgroup-v2.rst, cpuset.cpus): "0-3,8". The error says which part is wrong.
[[nodiscard]] Result<CpuSet> parse_cpu_list(std::string_view text);
void format_value(Sink& sink, const CpuSet& set);

// "512M": bytes, with an optional suffix K, M or G (powers of 1024).
[[nodiscard]] Result<u64> parse_size(std::string_view text);

// cgroup v2's cpu.max: at most `quota_us` of processor time in every `period_us`.
struct CpuLimit {
    static constexpr u64 unlimited = ~u64{0};
    u64 quota_us = unlimited;
    u64 period_us = 100'000;
};
[[nodiscard]] Result<CpuLimit> parse_cpu_limit(std::string_view text);

// "ctrl-]": the control character it stands for.
[[nodiscard]] Result<u8> parse_escape_key(std::string_view text);
// How a control character is shown to the operator: "CTRL-]".
[[nodiscard]] FixedString<8> name_of_key(u8 control);

// True for a VM's name that may be used: 1 to 31 of A-Z a-z 0-9 . _ -, not all digits (that is an id).
[[nodiscard]] Result<> check_vm_name(std::string_view name);

// [vm.NAME]
struct VmConfig {
    static constexpr usize max_modules = 16;
    static constexpr u64 default_memory = 256 * mib;
    static constexpr u64 min_memory = 2 * mib;  // the least the PC's memory map has room for
    static constexpr u64 max_memory = 16 * 1024 * gib;
    static constexpr unsigned max_vcpus = 16;

    FixedString<31> name;
    // Something about this VM was reported; the VM must not be created. The other members are not to be
    // relied on then.
    bool refused = false;

    CpuSet cpus;         // empty: wherever there is room
    unsigned vcpus = 1;  // default: as many as `cpus` has
    u64 memory_bytes = default_memory;
    FixedString<127> kernel;  // names of boot modules
    FixedString<127> initrd;
    FixedString<2047> cmdline;
    BootProtocol boot = BootProtocol::automatic;
    ComPort console = ComPort::none;  // none: the VM's serial port is reached by `console NAME`
    unsigned cpu_weight = 100;        // 1..10000
    CpuLimit cpu_limit;
    bool gang = false;  // its vCPUs run at the same time or not at all
    bool autostart = true;
    LifecycleAction on_reboot = LifecycleAction::restart;
    LifecycleAction on_crash = LifecycleAction::preserve;

    // Modules that the guest's kernel gets, each "NAME" or "NAME COMMAND LINE".
    [[nodiscard]] usize module_count() const { return module_ends_.size(); }
    [[nodiscard]] std::string_view module(usize index) const;
    [[nodiscard]] std::string_view module_name(usize index) const;
    [[nodiscard]] std::string_view module_arguments(usize index) const;
    [[nodiscard]] bool add_module(std::string_view text);
    void clear_modules();

  private:
    FixedString<1023> module_text_;  // all of them, one after the other
    FixedVector<u16, max_modules> module_ends_;
};

// The caller provides the room for VMs: about 4 KiB each.
class Config {
  public:
    static constexpr usize max_vms = 64;

    explicit Config(std::span<VmConfig> room) : room_(room) {}

    HostConfig host;
    [[nodiscard]] std::span<const VmConfig> vms() const { return room_.first(count_); }
    [[nodiscard]] std::span<VmConfig> vms() { return room_.first(count_); }

    // A VM with default settings, or null when there is no room.
    [[nodiscard]] VmConfig* add();
    void clear();
    // For a file that could not be read to its end.
    void refuse_all();

  private:
    std::span<VmConfig> room_;
    usize count_ = 0;
};

// Reads `text` into `config`, which is cleared first. Every problem goes to `problems` as one line
// `FILE:LINE:COLUMN: what; what to do`; a VM that it concerns is marked refused, a host setting that it
// concerns keeps its default. Returns the number of problems. `document` is working memory.
unsigned parse_config(std::string_view file_name, std::string_view text, toml::Document& document,
                      Config& config, Sink& problems);

// A snippet of one [vm.NAME] table and nothing else, into `vm`. `config` is what it must not clash with; a VM
// of the same name there is the one to be replaced. Returns the number of problems; `vm` is not to be relied
// on if there are any.
unsigned parse_vm_snippet(std::string_view text, toml::Document& document, const Config& config, VmConfig& vm,
                          Sink& problems);

// Changes one key of a VM: `value` as in the file, but a string may do without its quotes. On failure `vm` is
// not to be relied on.
[[nodiscard]] Result<> update_vm(VmConfig& vm, std::string_view key, std::string_view value,
                                 toml::Document& document, const Config& config);

}  // namespace bulkhead
