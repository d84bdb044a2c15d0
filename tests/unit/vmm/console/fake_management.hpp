// A hypervisor that only remembers what it was asked.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "vmm/console/commands.hpp"
#include "vmm/console/management.hpp"

namespace bulkhead {

struct StringSink final : Sink {
    std::string text;
    void write(std::string_view piece) override { text += piece; }
    std::string take() {
        std::string result;
        result.swap(text);
        return result;
    }
};

struct FakeManagement final : Management {
    struct Vm {
        VmSummary summary;
        VmConfig config;
        std::string reason;
        std::optional<VmFault> fault;
        ExitStatistics exits;
        std::vector<u8> storage = std::vector<u8>(64);
        std::unique_ptr<ConsoleRing> ring;
        std::vector<LineStamp> stamps = std::vector<LineStamp>(16);
        std::string received;
        size_t fifo_room = 1000;
        std::vector<u8> scan_codes;
        size_t keyboard_room = 1000;
        std::vector<VcpuSummary> vcpus;
        VcpuRegisters registers;
        u64 memory_base = 0x1000;  // of `memory`, linear; physical at memory_base + 0x10000
        std::vector<u8> memory;
        ScreenText screen;
        VmMemorySummary memory_summary;
        std::optional<GangSummary> gang;
    };
    std::deque<Vm> vms;
    std::vector<LogEntry> log;
    std::vector<std::string> calls;
    std::string error;  // what actions fail with
    std::vector<CoreSummary> cores;
    std::map<std::string, std::string, std::less<>> modules;
    std::vector<std::string> problems;  // that a config snippet has
    std::string snippet;
    std::string plan;
    TableCheck tables{.tables = 5, .mappings = 321, .leaks = 0};
    bool tables_unreadable = false, unreachable_core = false;
    std::optional<u16> reached_by;                  // the VM that can read another's memory
    std::vector<std::pair<int, int>> reach_checks;  // viewer (-1: the kernel) and owner
    std::function<void()> hook;                     // called within each action
    // Each look at the clock takes 100 us, so that waiting ends.
    mutable u64 clock = 100'000'000'000;

    Vm& add(u16 id, std::string_view name, VmState state = VmState::running, unsigned vcpus = 1,
            u64 memory = 256 * mib, u64 nanoseconds = 0) {
        Vm& vm = vms.emplace_back();
        vm.summary.id = VmId(id);
        vm.summary.name.append(name);
        vm.summary.state = state;
        vm.summary.vcpus = vcpus;
        vm.summary.memory_bytes = memory;
        vm.summary.cpu_nanoseconds = nanoseconds;
        vm.ring = std::make_unique<ConsoleRing>(vm.storage, vm.stamps);
        return vm;
    }
    void log_line(u64 microseconds, LogLevel level, std::string_view text) {
        LogEntry entry;
        entry.sequence = log.size();
        entry.microseconds = microseconds;
        entry.level = level;
        entry.text.append(text);
        log.push_back(entry);
    }
    const Vm* find(VmId id) const {
        for (const Vm& vm : vms) {
            if (vm.summary.id == id) return &vm;
        }
        return nullptr;
    }
    Vm* find(VmId id) { return const_cast<Vm*>(static_cast<const FakeManagement*>(this)->find(id)); }
    Result<> act(std::string_view what, VmId vm) {
        calls.push_back(std::string(what) + " " + std::to_string(vm.raw()));
        if (hook) hook();
        if (!error.empty()) return fail("{}", std::string_view(error));
        return {};
    }

    u64 uptime = 90'500'000'000, watched = 0;
    std::vector<ExitRecord> records;

    HostInfo host() const override {
        return {"0.1", "VT-x", 4, 8 * gib, 1'700'000'000, clock, 1'000'000'000};
    }
    u64 nanoseconds() const override { return clock += 100'000; }
    u64 nanoseconds_at(u64 tsc) const override { return tsc; }
    void print_plan(Sink& out) const override { out.write(plan); }
    Integrity integrity() const override {
        return {
            .text_checksum = 0x1234567890ABCDEF, .table_checksum = 0xFEDC, .free_pages = 42, .free_units = 7};
    }
    usize vm_count() const override { return vms.size(); }
    bool summary(usize index, VmSummary& out) const override {
        if (index >= vms.size()) return false;
        out = vms[index].summary;
        return true;
    }
    bool details(VmId id, VmDetails& out) const override {
        const Vm* vm = find(id);
        if (vm == nullptr) return false;
        out.summary = vm->summary;
        out.config = &vm->config;
        out.uptime_nanoseconds = uptime;
        out.resets = 2;
        out.reason.clear();
        out.reason.append(vm->reason);
        out.fault = vm->fault;
        return true;
    }
    bool exit_statistics(VmId id, ExitStatistics& out) const override {
        const Vm* vm = find(id);
        if (vm == nullptr || vm->summary.state == VmState::off) return false;
        out = vm->exits;
        return true;
    }
    // The guest goes on meanwhile.
    void watch_exits(VmId id, u64 nanoseconds) override {
        watched = nanoseconds;
        uptime += 1'250'000'000;
        for (Vm& vm : vms) {
            if (vm.summary.id != id) continue;
            vm.exits.of(ExitReason::port_io).count += 300;
            vm.exits.of(ExitReason::hlt).count += 1;
            vm.exits.host_caused[static_cast<usize>(HostCause::kick)] += 3;
        }
    }
    usize recent_exits(VmId, std::span<ExitRecord> out) const override {
        const usize count = std::min(out.size(), records.size());
        std::copy_n(records.begin(), count, out.begin());
        return count;
    }
    Result<> start(VmId vm) override { return act("start", vm); }
    Result<> pause(VmId vm) override { return act("pause", vm); }
    Result<> unpause(VmId vm) override { return act("unpause", vm); }
    Result<> reset(VmId vm) override { return act("reset", vm); }
    Result<> shutdown(VmId vm) override { return act("shutdown", vm); }
    Result<> destroy(VmId vm) override { return act("destroy", vm); }
    Result<> create(std::string_view text, Sink& sink) override {
        snippet = text;
        for (const std::string& problem : problems) sink.write(problem + "\n");
        return act("create", VmId(0));
    }
    Result<usize> read_module(std::string_view name, std::span<char> out) override {
        const auto found = modules.find(name);
        if (found == modules.end()) return fail("there is no module \"{}\"", name);
        if (found->second.size() > out.size()) return fail("module \"{}\" is too long", name);
        std::copy(found->second.begin(), found->second.end(), out.begin());
        return found->second.size();
    }
    Result<> rename(VmId vm, std::string_view name) override {
        return act("rename to " + std::string(name), vm);
    }
    Result<> set(VmId vm, std::string_view key, std::string_view value) override {
        return act("set " + std::string(key) + "=" + std::string(value), vm);
    }
    bool vcpu_summary(VmId id, unsigned vcpu, VcpuSummary& out) const override {
        const Vm* vm = find(id);
        if (vm == nullptr || vcpu >= vm->vcpus.size()) return false;
        out = vm->vcpus[vcpu];
        return true;
    }
    Result<> pin_vcpu(VmId vm, unsigned vcpu, const CpuSet& set) override {
        StringSink text;
        print(text, "pin {} to {}", vcpu, set);
        return act(text.text, vm);
    }
    Result<> registers(VmId id, unsigned vcpu, VcpuRegisters& out) override {
        const Vm* vm = find(id);
        if (vm == nullptr || vcpu >= vm->vcpus.size()) return fail("the VM has no vCPU {}", vcpu);
        out = vm->registers;
        return {};
    }
    Result<usize> read_memory(VmId id, unsigned, AddressKind kind, u64 address, MutableBytes out) override {
        const Vm* vm = find(id);
        const u64 base = vm->memory_base + (kind == AddressKind::physical ? 0x10000 : 0);
        if (address - base >= vm->memory.size()) return fail("nothing is mapped at {:#x}", address);
        const usize offset = address - base;
        const usize count = std::min(out.size(), vm->memory.size() - offset);
        std::copy_n(vm->memory.begin() + static_cast<long>(offset), count, out.begin());
        return count;
    }
    Result<> screen(VmId id, ScreenText& out) override {
        const Vm* vm = find(id);
        if (vm == nullptr || vm->screen.rows == 0) return fail("the VM shows a graphics mode");
        out = vm->screen;
        return {};
    }
    bool send_scan_codes(VmId id, std::span<const u8> codes) override {
        Vm* vm = find(id);
        if (vm == nullptr || vm->keyboard_room < codes.size()) return false;
        vm->keyboard_room -= codes.size();
        vm->scan_codes.insert(vm->scan_codes.end(), codes.begin(), codes.end());
        return true;
    }
    bool core_summary(unsigned core, CoreSummary& out) const override {
        if (core >= cores.size()) return false;
        out = cores[core];
        return true;
    }
    MemorySummary memory() const override { return {8 * gib, 6 * gib, 4 * gib, 3 * mib}; }
    bool vm_memory(VmId id, VmMemorySummary& out) const override {
        const Vm* vm = find(id);
        if (vm == nullptr) return false;
        out = vm->memory_summary;
        return true;
    }
    bool gang_summary(VmId id, GangSummary& out) const override {
        const Vm* vm = find(id);
        if (vm == nullptr || !vm->gang) return false;
        out = *vm->gang;
        return true;
    }
    Result<> check_tables(TableCheck& out, Sink& leaks) override {
        out = tables;
        if (tables_unreadable) return fail("memory in too many pieces");
        for (u64 i = 0; i < tables.leaks; ++i) print(leaks, "leak {}\n", i);
        return {};
    }
    Result<> check_reach(std::optional<VmId> viewer, VmId owner, ReachCheck& out) override {
        reach_checks.push_back({viewer ? int{viewer->raw()} : -1, int{owner.raw()}});
        out = {.cores = viewer ? 1U : 4U, .loads = 10};
        if (unreachable_core) return fail("core 3 does not answer");
        if (reached_by && viewer && viewer->raw() == *reached_by) {
            out.reached = true;
            out.core = 2;
            out.address = HostPhysical(0x1234000);
        }
        return {};
    }
    SpeculationFacts facts;
    SpeculationFacts speculation_facts() const override { return facts; }
    Mitigations mitigations() const override { return decide_mitigations(facts); }
    u64 barriers_issued(unsigned core, Barrier barrier) const override {
        return core * 100 + static_cast<u64>(barrier);
    }
    bool read_log(u64 sequence, LogEntry& entry) override {
        if (sequence >= log.size()) return false;
        entry = log[sequence];
        return true;
    }
    Result<> reboot() override { return act("reboot", VmId(0)); }
    Result<> poweroff() override { return act("poweroff", VmId(0)); }
    ConsoleRing* console(VmId id) override {
        Vm* vm = find(id);
        return vm == nullptr ? nullptr : vm->ring.get();
    }
    bool send_input(VmId id, u8 byte) override {
        Vm* vm = find(id);
        if (vm == nullptr || vm->fifo_room == 0) return false;
        --vm->fifo_room;
        vm->received += static_cast<char>(byte);
        return true;
    }
};

// Runs lines at a prompt to their end, without a terminal.
struct Prompt {
    explicit Prompt(Management& management) : interpreter(std::make_unique<CommandInterpreter>(management)) {}

    // Types `text` when the command asks for one; ends a command that is live after `live_steps` steps.
    std::string run(std::string_view line, std::vector<std::string> typed = {}, unsigned live_steps = 1) {
        using enum CommandInterpreter::Progress;
        StringSink sink;
        interpreter->begin(line, sink);
        most_in_a_step = 0;
        for (unsigned steps = 0;; ++steps) {
            const usize before = sink.text.size();
            const auto progress = interpreter->step();
            most_in_a_step = std::max(most_in_a_step, sink.text.size() - before);
            if (progress == done) return sink.text;
            if (progress == CommandInterpreter::Progress::text) {
                typed.push_back(".");
                for (const std::string& each : typed) {
                    if (interpreter->give_text(each)) break;
                }
            }
            if (interpreter->live() && steps + 1 >= live_steps) {
                interpreter->cancel();
                return sink.text;
            }
            if (steps > 3'000'000) throw std::runtime_error("the command does not end");
        }
    }
    std::unique_ptr<CommandInterpreter> interpreter;
    usize most_in_a_step = 0;
};

}  // namespace bulkhead
