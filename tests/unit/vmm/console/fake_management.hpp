// A hypervisor that only remembers what it was asked.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "vmm/console/management.hpp"

namespace bulkhead {

struct FakeManagement final : Management {
    struct Vm {
        VmSummary summary;
        VmConfig config;
        std::string reason;
        ExitStatistics exits;
        std::vector<u8> storage = std::vector<u8>(64);
        std::unique_ptr<ConsoleRing> ring;
        std::string received;
        size_t fifo_room = 1000;
    };
    std::deque<Vm> vms;
    std::vector<LogEntry> log;
    std::vector<std::string> calls;
    std::string error;  // what the next action fails with

    Vm& add(u16 id, std::string_view name, VmState state = VmState::running, unsigned vcpus = 1,
            u64 memory = 256 * mib, u64 nanoseconds = 0) {
        Vm& vm = vms.emplace_back();
        vm.summary.id = VmId(id);
        vm.summary.name.append(name);
        vm.summary.state = state;
        vm.summary.vcpus = vcpus;
        vm.summary.memory_bytes = memory;
        vm.summary.cpu_nanoseconds = nanoseconds;
        vm.ring = std::make_unique<ConsoleRing>(vm.storage);
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
        if (!error.empty()) return fail("{}", std::string_view(error));
        return {};
    }

    HostInfo host() const override { return {"0.1", "VT-x", 4, 8 * gib}; }
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
        out.uptime_nanoseconds = 90'500'000'000;
        out.resets = 2;
        out.reason.clear();
        out.reason.append(vm->reason);
        return true;
    }
    bool exit_statistics(VmId id, ExitStatistics& out) const override {
        const Vm* vm = find(id);
        if (vm == nullptr || vm->summary.state == VmState::off) return false;
        out = vm->exits;
        return true;
    }
    Result<> start(VmId vm) override { return act("start", vm); }
    Result<> pause(VmId vm) override { return act("pause", vm); }
    Result<> unpause(VmId vm) override { return act("unpause", vm); }
    Result<> reset(VmId vm) override { return act("reset", vm); }
    Result<> shutdown(VmId vm) override { return act("shutdown", vm); }
    Result<> destroy(VmId vm) override { return act("destroy", vm); }
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

struct StringSink final : Sink {
    std::string text;
    void write(std::string_view piece) override { text += piece; }
    std::string take() {
        std::string result;
        result.swap(text);
        return result;
    }
};

}  // namespace bulkhead
