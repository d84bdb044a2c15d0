// The interrupt fabric of one VM: takes messages from I/O APICs, devices and local APICs to the local APICs
// they address. It knows this VM's APICs only, so no message can leave the VM.
// Intel SDM Vol. 3A, 11.6.2 (June 2023 edition).
#pragma once

#include <atomic>

#include "kernel/base/fixed_vector.hpp"
#include "vmm/dev/io_apic.hpp"
#include "vmm/dev/local_apic.hpp"

namespace bulkhead {

// Makes a vCPU look at its local APIC: kicks it out of guest mode or wakes it from a halt.
class Waker {
  public:
    // vcpu: the index under which its APIC was added. Any core, with the I/O APIC's lock or others held;
    // cheap and harmless if it already looks. Not called for a processor's message to itself.
    virtual void wake(unsigned vcpu) = 0;

  protected:
    ~Waker() = default;
};

class Interrupts final : public InterruptBus {
  public:
    static constexpr unsigned max_vcpus = 64;

    explicit Interrupts(Waker& waker) : waker_(waker) { pic_output_.fabric = this; }
    Interrupts(const Interrupts&) = delete;
    Interrupts& operator=(const Interrupts&) = delete;

    // While the VM is built. The n-th APIC added belongs to vCPU n. False when full.
    [[nodiscard]] bool add(LocalApic& apic) { return apics_.push_back(&apic); }
    [[nodiscard]] bool add(IoApic& apic) { return io_apics_.push_back(&apic); }

    // Any core. Bounded by the number of vCPUs; takes no lock.
    bool deliver(const InterruptMessage& message) override;
    void broadcast_eoi(Vector vector) override;
    void destinations_changed() override;

    // A device's memory write to FEExxxxxh. What is no valid message is dropped.
    void deliver_msi(u64 address, u32 data);

    // INTR of the first 8259A, wired to LINT0 of every processor.
    [[nodiscard]] IrqLine& pic_output() { return pic_output_; }

  private:
    struct PicOutput final : IrqLine {
        Interrupts* fabric = nullptr;
        void set(bool level) override;
    };

    bool accept(unsigned vcpu, const InterruptMessage& message);
    bool deliver_lowest_priority(const InterruptMessage& message);
    [[nodiscard]] bool addresses(const LocalApic& apic, const InterruptMessage& message) const;

    Waker& waker_;
    FixedVector<LocalApic*, max_vcpus> apics_;
    FixedVector<IoApic*, 2> io_apics_;
    std::atomic<u32> turn_{0};  // where the next arbitration starts, so that equals take turns
    PicOutput pic_output_;
};

}  // namespace bulkhead
