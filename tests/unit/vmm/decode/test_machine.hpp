// A machine of arrays for the emulator's tests: RAM, one device that records its accesses, ports that do
// likewise, and nothing elsewhere.
#pragma once

#include <cstring>
#include <functional>
#include <vector>

#include "arch/x86/regs/control.hpp"
#include "vmm/decode/emulator.hpp"

namespace bulkhead::test {

struct PhysicalAccess {
    bool write = false;
    u64 address = 0;
    unsigned size = 0;
    u64 value = 0;
    friend bool operator==(const PhysicalAccess&, const PhysicalAccess&) = default;
};

class TestMachine final : public EmulationContext {
  public:
    explicit TestMachine(u64 ram_size = 64 * kib, u64 base = 0) : ram(ram_size), ram_base(base) {
        set(Register::rflags, rflags::reserved_one);
    }

    // 64-bit code, paging off as far as the walk is concerned (identity), unless a test sets page tables up.
    void enter_long_mode() {
        set(Register::cr0, cr0::pe);
        set(Register::efer, efer::lme | efer::lma);
        for (auto& s : segments) s = {.selector = 0x10, .limit = 0xFFFFFFFF, .access = 0xC093};
        segments[static_cast<unsigned>(SegmentName::cs)] = {
            .selector = 8, .limit = 0xFFFFFFFF, .access = 0xA09B};
    }
    // Flat 32-bit protected mode.
    void enter_protected_mode() {
        set(Register::cr0, cr0::pe);
        set(Register::efer, 0);
        for (auto& s : segments) s = {.selector = 0x10, .limit = 0xFFFFFFFF, .access = 0xC093};
        segments[static_cast<unsigned>(SegmentName::cs)] = {
            .selector = 8, .limit = 0xFFFFFFFF, .access = 0xC09B};
    }
    void enter_real_mode() {
        set(Register::cr0, 0);
        set(Register::efer, 0);
        for (auto& s : segments) s = {.limit = 0xFFFF, .access = 0x93};
    }

    void set(Register which, u64 value) { registers[static_cast<unsigned>(which)] = value; }
    Segment& seg(SegmentName name) { return segments[static_cast<unsigned>(name)]; }

    bool in_ram(u64 address, u64 size) const {
        return address >= ram_base && range_within(address - ram_base, size, ram.size());
    }
    bool in_device(u64 address) const {
        return device_size != 0 && address >= device_base && address - device_base < device_size;
    }
    template <class T>
    T peek(u64 address) const {
        T value;
        std::memcpy(&value, ram.data() + (address - ram_base), sizeof value);
        return value;
    }
    template <class T>
    void poke(u64 address, T value) {
        std::memcpy(ram.data() + (address - ram_base), &value, sizeof value);
    }
    void poke_bytes(u64 address, std::initializer_list<u8> bytes) {
        std::copy(bytes.begin(), bytes.end(), ram.begin() + static_cast<long>(address - ram_base));
    }

    GeneralRegisters& gprs() override { return general; }
    u64 read(Register which) const override { return registers[static_cast<unsigned>(which)]; }
    void write(Register which, u64 value) override { set(which, value); }
    Segment segment(SegmentName which) const override { return segments[static_cast<unsigned>(which)]; }
    unsigned cpl() const override { return privilege; }
    unsigned physical_address_bits() const override { return physical_bits; }
    std::optional<std::array<u64, 4>> pdptes() const override { return pdpte_registers; }

    bool read_physical(GuestPhysical address, unsigned size, u64& value) override {
        ++reads;
        value = all_ones(size);
        if (refuse) return false;
        if (in_ram(address.raw(), size)) {
            value = 0;
            std::memcpy(&value, ram.data() + (address.raw() - ram_base), size);
            if (on_read) on_read(address.raw());
            return true;
        }
        if (in_device(address.raw())) {
            value = device_value & all_ones(size);
            device_log.push_back({false, address.raw(), size, value});
        }
        return true;
    }
    bool write_physical(GuestPhysical address, unsigned size, u64 value) override {
        if (refuse) return false;
        if (in_ram(address.raw(), size)) {
            std::memcpy(ram.data() + (address.raw() - ram_base), &value, size);
            ++ram_writes;
        } else if (in_device(address.raw())) {
            device_log.push_back({true, address.raw(), size, value});
        }
        return true;
    }
    ExchangeResult compare_exchange(GuestPhysical address, unsigned size, u64& expected,
                                    u64 desired) override {
        if (!in_ram(address.raw(), size)) return ExchangeResult::not_ram;
        if (before_exchange) before_exchange(address.raw());
        u64 value = 0;
        std::memcpy(&value, ram.data() + (address.raw() - ram_base), size);
        if (value != (expected & all_ones(size))) {
            expected = value;
            return ExchangeResult::changed;
        }
        std::memcpy(ram.data() + (address.raw() - ram_base), &desired, size);
        ++exchanges;
        return ExchangeResult::exchanged;
    }
    bool fetch_physical(GuestPhysical address, MutableBytes to) override {
        fetched_bytes += to.size();
        return read_ram(address, to);
    }
    bool read_ram(GuestPhysical address, MutableBytes to) override {
        if (!in_ram(address.raw(), to.size())) return false;
        std::memcpy(to.data(), ram.data() + (address.raw() - ram_base), to.size());
        return true;
    }
    bool write_ram(GuestPhysical address, Bytes from) override {
        if (!in_ram(address.raw(), from.size())) return false;
        std::memcpy(ram.data() + (address.raw() - ram_base), from.data(), from.size());
        return true;
    }
    u32 port_read(Port port, unsigned size) override {
        const u32 value = static_cast<u32>(port_value++ & all_ones(size));
        port_log.push_back({false, port.raw(), size, value});
        return value;
    }
    void port_write(Port port, unsigned size, u32 value) override {
        port_log.push_back({true, port.raw(), size, value});
    }
    bool attention_pending() const override { return attention; }

    // Decodes `bytes` and executes them as the instruction at RIP.
    Outcome execute(std::initializer_list<u8> bytes, const EmulatorOptions& options = {}) {
        const std::vector<u8> copy(bytes);
        const ExecutionMode mode = execution_mode(*this);
        Instruction instruction;
        status = decode(copy, mode.code, instruction);
        if (status != DecodeStatus::ok) return {Outcome::Kind::unsupported, {}};
        return emulate(*this, mode, instruction, options);
    }

    GeneralRegisters general{};
    u64 registers[static_cast<unsigned>(Register::count)] = {};
    Segment segments[8] = {};
    unsigned privilege = 0;
    unsigned physical_bits = 40;
    std::optional<std::array<u64, 4>> pdpte_registers{};
    std::vector<u8> ram;
    u64 ram_base = 0;
    u64 device_base = 0;
    u64 device_size = 0;
    u64 device_value = 0;
    std::vector<PhysicalAccess> device_log;
    std::vector<PhysicalAccess> port_log;
    u64 port_value = 0x11;
    bool attention = false;
    bool refuse = false;
    unsigned reads = 0;
    unsigned ram_writes = 0;
    unsigned exchanges = 0;
    u64 fetched_bytes = 0;
    DecodeStatus status = DecodeStatus::ok;
    std::function<void(u64)> on_read;
    std::function<void(u64)> before_exchange;
};

}  // namespace bulkhead::test
