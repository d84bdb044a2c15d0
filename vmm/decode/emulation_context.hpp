// What the emulator asks of the virtual processor and its machine. The virtual processor implements it; the
// tests have a machine of arrays.
#pragma once

#include <optional>
#include <span>

#include "kernel/base/bytes.hpp"
#include "vmm/cpu_state.hpp"
#include "vmm/decode/page_walk.hpp"

namespace bulkhead {

// read_physical and compare_exchange are those of PagingMemory, with these additions: read_physical also
// takes sizes 1 and 2; both take any alignment within a page and addresses of devices (of which there is no
// atomic access).
class EmulationContext : public PagingMemory {
  public:
    // RSP is among them. RIP and RFLAGS are read and written as registers.
    [[nodiscard]] virtual GeneralRegisters& gprs() = 0;

    // Asked for: rip, rflags, cr0, cr3, cr4, efer. Written: rip, rflags.
    [[nodiscard]] virtual u64 read(Register which) const = 0;
    virtual void write(Register which, u64 value) = 0;
    // FS and GS with the base that the MSRs hold.
    [[nodiscard]] virtual Segment segment(SegmentName which) const = 0;
    [[nodiscard]] virtual unsigned cpl() const = 0;
    // The guest's MAXPHYADDR, 32..52.
    [[nodiscard]] virtual unsigned physical_address_bits() const = 0;
    [[nodiscard]] virtual bool gigabyte_pages() const { return true; }
    // PAE paging: the PDPTEs where the hardware keeps copies of them (VT-x); nothing: they are read from
    // memory.
    [[nodiscard]] virtual std::optional<std::array<u64, 4>> pdptes() const { return std::nullopt; }

    // Guest-physical accesses never cross a page. A device is accessed once, in the size given. False: the
    // access cannot be made at all, and the instruction ends as unsupported; what merely does nothing (holes,
    // writes to ROM) is not that. An implementation that refuses an address refuses reads and writes of all
    // sizes.
    [[nodiscard]] virtual bool write_physical(GuestPhysical address, unsigned size, u64 value) = 0;

    // Code: up to 15 bytes from RAM or ROM. False elsewhere: no code is fetched from devices.
    [[nodiscard]] virtual bool fetch_physical(GuestPhysical address, MutableBytes to) = 0;

    // RAM (or ROM, to read) in bulk within a page, for string port instructions. False with nothing done
    // where it is anything else: the accesses are then made one element at a time.
    [[nodiscard]] virtual bool read_ram(GuestPhysical address, MutableBytes to) = 0;
    [[nodiscard]] virtual bool write_ram(GuestPhysical address, Bytes from) = 0;

    // size: 1, 2 or 4. Permission was checked by hardware before the exit.
    [[nodiscard]] virtual u32 port_read(Port port, unsigned size) = 0;
    virtual void port_write(Port port, unsigned size, u32 value) = 0;
    // `bytes` is a whole number of elements. To be overridden where looking the device up costs something.
    virtual void port_read_string(Port port, unsigned size, MutableBytes bytes) {
        for (usize at = 0; at < bytes.size(); at += size) {
            const u32 value = port_read(port, size);
            for (unsigned i = 0; i < size; ++i) bytes[at + i] = static_cast<u8>(value >> (8 * i));
        }
    }
    virtual void port_write_string(Port port, unsigned size, Bytes bytes) {
        for (usize at = 0; at < bytes.size(); at += size) {
            if (size == 1) {
                port_write(port, 1, bytes[at]);
                continue;
            }
            u32 value = 0;
            for (unsigned i = 0; i < size; ++i) value |= static_cast<u32>(bytes[at + i]) << (8 * i);
            port_write(port, size, value);
        }
    }

    // Something wants the virtual processor (an interrupt, a reset, the scheduler): a repeated string
    // instruction is left after the current elements.
    [[nodiscard]] virtual bool attention_pending() const { return false; }

  protected:
    ~EmulationContext() = default;
};

}  // namespace bulkhead
