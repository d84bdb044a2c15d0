// The emulator's view of a virtual processor: its registers, its memory with the devices in it, its ports.
#pragma once

#include "vmm/decode/emulation_context.hpp"
#include "vmm/vcpu.hpp"

namespace bulkhead {

class VcpuContext final : public EmulationContext {
  public:
    VcpuContext(VirtualMachine& vm, unsigned vcpu, VcpuBackend& backend, LocalApic& apic,
                const CpuidPolicy& cpuid)
        : vm_(vm), vcpu_(vcpu), backend_(backend), apic_(apic), cpuid_(cpuid) {}

    bool read_physical(GuestPhysical address, unsigned size, u64& value) override;
    ExchangeResult compare_exchange(GuestPhysical address, unsigned size, u64& expected,
                                    u64 desired) override;
    GeneralRegisters& gprs() override { return backend_.gprs; }
    u64 read(Register which) const override { return backend_.read(which); }
    void write(Register which, u64 value) override { backend_.write(which, value); }
    Segment segment(SegmentName which) const override { return backend_.segment(which); }
    unsigned cpl() const override { return backend_.segment(SegmentName::ss).dpl(); }
    unsigned physical_address_bits() const override { return cpuid_.physical_bits(); }
    bool write_physical(GuestPhysical address, unsigned size, u64 value) override;
    bool fetch_physical(GuestPhysical address, MutableBytes to) override;
    bool read_ram(GuestPhysical address, MutableBytes to) override;
    bool write_ram(GuestPhysical address, Bytes from) override;
    u32 port_read(Port port, unsigned size) override;
    void port_write(Port port, unsigned size, u32 value) override;
    void port_read_string(Port port, unsigned size, MutableBytes bytes) override;
    void port_write_string(Port port, unsigned size, Bytes bytes) override;
    bool attention_pending() const override;

    // The local APIC's page was reached.
    [[nodiscard]] bool apic_accessed() const { return apic_accessed_; }

  private:
    [[nodiscard]] bool in_apic(GuestPhysical address) const;

    VirtualMachine& vm_;
    unsigned vcpu_;
    VcpuBackend& backend_;
    LocalApic& apic_;
    const CpuidPolicy& cpuid_;
    bool apic_accessed_ = false;
};

}  // namespace bulkhead
