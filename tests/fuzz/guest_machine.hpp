// A guest's processor and memory for the emulator and the page walk: eight pages of RAM, a page of device,
// holes elsewhere. RAM is filled with numbers that make page-table entries of one another, so that walks get
// far. What is read twice may have changed in between, and accesses may be refused, if the input says so.
#pragma once

#include "arch/x86/regs/control.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "vmm/decode/emulator.hpp"

namespace bulkhead::fuzz {

class GuestMachine final : public EmulationContext {
  public:
    static constexpr u64 ram_size = 8 * page_size, device = 0x10000;

    explicit GuestMachine(Input& in) : mode_(in.byte()), noise_(in.value<u32>()) {
        for (u64 at = 0; at < ram_size; at += 8) {
            const u64 random = noise_.next();
            // A page number that mostly exists, and flags of which "present" mostly is set.
            u64 entry = (random & 0xF) << 12 | (random >> 8 & 0xFFF) | ((random & 0xF0) != 0 ? 1 : 0);
            if ((random >> 20 & 0x1F) == 0) entry ^= random << 24;
            if ((random >> 32 & 0x3) != 0) entry &= ~u64{0x80};
            if ((random >> 34 & 0x3) != 0) entry |= 7;
            std::memcpy(ram_ + at, &entry, 8);
        }
    }

    // What a guest may have set its registers to.
    void set_state(Input& in) {
        for (unsigned i = 0; i < 16; ++i)
            general[i] = i < 8 || in.flag() ? in.number() : noise_.next() & 0xFFFF;
        const u8 kind = in.byte();
        u64& cr0_ = registers[static_cast<unsigned>(Register::cr0)];
        u64& cr4_ = registers[static_cast<unsigned>(Register::cr4)];
        u64& efer_ = registers[static_cast<unsigned>(Register::efer)];
        u64& flags = registers[static_cast<unsigned>(Register::rflags)];
        flags = (in.value<u32>() & 0x3F7FD5) | rflags::reserved_one;
        for (Segment& s : segments) {
            s = {.selector = 0x10, .limit = 0xFFFFFFFF, .access = 0xC093};
            if (in.rarely(32)) s.limit = static_cast<u32>(in.number());
            if (in.rarely(32)) s.base = in.number();
            if (in.rarely(16)) s.access = in.value<u16>();
            if (in.rarely(8)) s.unusable = true;
        }
        Segment& code = segments[static_cast<unsigned>(SegmentName::cs)];
        code.access = 0xC09B;
        cr4_ = in.value<u32>() & (cr4::pse | cr4::smep | cr4::smap);
        switch (kind & 3) {
            case 0:  // real mode
                cr0_ = 0;
                for (Segment& s : segments) s.limit &= 0xFFFF;
                code.access = 0x9B;
                flags &= ~rflags::vm;
                break;
            case 1: cr0_ = cr0::pe; break;
            case 2:
                cr0_ = cr0::pe | cr0::pg;
                if ((kind & 4) != 0) cr4_ |= cr4::pae;
                break;
            default:
                cr0_ = cr0::pe | cr0::pg;
                cr4_ |= cr4::pae | ((kind & 4) != 0 ? cr4::la57 : 0);
                efer_ = efer::lme | efer::lma | ((kind & 8) != 0 ? efer::nxe : 0);
                flags &= ~rflags::vm;
                code.access = (kind & 0x10) != 0 ? 0xA09B : 0xC09B;
        }
        cr0_ |= in.value<u32>() & (cr0::wp | cr0::am | cr0::ts | cr0::em);
        if ((cr0_ & cr0::pe) == 0) cr0_ &= ~cr0::pg;
        registers[static_cast<unsigned>(Register::cr3)] = in.value<u16>() & 0xF018U;
        privilege = (cr0_ & cr0::pe) == 0 ? 0 : (flags & rflags::vm) != 0 ? 3 : (in.byte() & 3U);
    }

    GeneralRegisters& gprs() override { return general; }
    u64 read(Register which) const override { return registers[static_cast<unsigned>(which)]; }
    void write(Register which, u64 value) override {
        MUST(which == Register::rip || which == Register::rflags);
        registers[static_cast<unsigned>(which)] = value;
    }
    Segment segment(SegmentName which) const override { return segments[static_cast<unsigned>(which)]; }
    unsigned cpl() const override { return privilege; }
    unsigned physical_address_bits() const override { return 40; }
    std::optional<std::array<u64, 4>> pdptes() const override {
        if ((mode_ & 0x10) == 0) return std::nullopt;
        return std::array<u64, 4>{0x1001, 0x2001, 0, 0x3001};
    }

    bool read_physical(GuestPhysical address, unsigned size, u64& value) override {
        count(address, size);
        value = all_ones(size);
        if (refuses()) return false;
        if (range_within(address.raw(), size, ram_size)) {
            value = 0;
            for (unsigned i = 0; i < size; ++i) value |= u64{fetch(address.raw() + i)} << (8 * i);
        } else if (in_device(address)) {
            ++device_reads;
            value = noise_.next() & all_ones(size);
        }
        return true;
    }
    bool write_physical(GuestPhysical address, unsigned size, u64 value) override {
        count(address, size);
        if (refuses()) return false;
        ++writes;
        if (range_within(address.raw(), size, ram_size)) {
            std::memcpy(ram_ + address.raw(), &value, size);
        } else if (in_device(address)) {
            ++device_writes;
        }
        return true;
    }
    ExchangeResult compare_exchange(GuestPhysical address, unsigned size, u64& expected,
                                    u64 desired) override {
        count(address, size);
        if (!range_within(address.raw(), size, ram_size)) return ExchangeResult::not_ram;
        u64 found = 0;
        for (unsigned i = 0; i < size; ++i) found |= u64{fetch(address.raw() + i)} << (8 * i);
        if (found != (expected & all_ones(size))) {
            expected = found;
            return ExchangeResult::changed;
        }
        std::memcpy(ram_ + address.raw(), &desired, size);
        return ExchangeResult::exchanged;
    }
    bool fetch_physical(GuestPhysical address, MutableBytes to) override {
        MUST(!to.empty() && to.size() <= 15 && address.offset_in(page_size) + to.size() <= page_size);
        if (!range_within(address.raw(), to.size(), ram_size)) return false;
        for (usize i = 0; i < to.size(); ++i) to[i] = fetch(address.raw() + i);
        return true;
    }
    bool read_ram(GuestPhysical address, MutableBytes to) override {
        MUST(address.offset_in(page_size) + to.size() <= page_size);
        if (!range_within(address.raw(), to.size(), ram_size) || refuses()) return false;
        bulk += to.size();
        for (usize i = 0; i < to.size(); ++i) to[i] = fetch(address.raw() + i);
        return true;
    }
    bool write_ram(GuestPhysical address, Bytes from) override {
        MUST(address.offset_in(page_size) + from.size() <= page_size);
        if (!range_within(address.raw(), from.size(), ram_size) || refuses()) return false;
        bulk += from.size();
        ++writes;
        if (!from.empty()) std::memcpy(ram_ + address.raw(), from.data(), from.size());
        return true;
    }
    u32 port_read(Port, unsigned size) override {
        MUST(size == 1 || size == 2 || size == 4);
        ++ports;
        return static_cast<u32>(noise_.next() & all_ones(size));
    }
    void port_write(Port, unsigned size, u32 value) override {
        MUST(size == 1 || size == 2 || size == 4);
        MUST((value & ~all_ones(size)) == 0);
        ++ports;
    }
    bool attention_pending() const override { return (mode_ & 0x40) != 0 && accesses > 8; }

    void poke(u64 at, Bytes bytes) {
        for (usize i = 0; i < bytes.size() && at + i < ram_size; ++i) ram_[at + i] = bytes[i];
    }
    // Nothing changes or is refused: an access has its one outcome.
    [[nodiscard]] bool steady() const { return (mode_ & 3) < 2; }

    GeneralRegisters general{};
    u64 registers[static_cast<unsigned>(Register::count)] = {};
    Segment segments[8] = {};
    unsigned privilege = 0;
    u64 accesses = 0, writes = 0, device_reads = 0, device_writes = 0, ports = 0, bulk = 0;

  private:
    [[nodiscard]] static bool in_device(GuestPhysical address) {
        return address.raw() >= device && address.raw() - device < page_size;
    }
    void count(GuestPhysical address, unsigned size) {
        MUST(size == 1 || size == 2 || size == 4 || size == 8 || size == 3 || (size > 4 && size < 8));
        MUST(address.offset_in(page_size) + size <= page_size);
        MUST(address.raw() < u64{1} << 40);
        ++accesses;
    }
    [[nodiscard]] bool refuses() { return (mode_ & 3) == 3 && noise_.byte() < 24; }
    u8 fetch(u64 at) {
        const bool again = seen_[at];
        seen_[at] = true;
        if (again && (mode_ & 3) == 2 && noise_.byte() < 32) ram_[at] = noise_.byte();
        return ram_[at];
    }

    u8 mode_;
    Noise noise_;
    u8 ram_[ram_size];
    bool seen_[ram_size] = {};
};

}  // namespace bulkhead::fuzz
