// One virtual PC: its chips wired up, its memory and its processors. Everything in it lives in the VM's
// arena; what it wants of the outside goes through Surroundings.
#pragma once

#include <span>
#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "kernel/mem/arena.hpp"
#include "vmm/backend_factory.hpp"
#include "vmm/dev/acpi_pm.hpp"
#include "vmm/dev/bus.hpp"
#include "vmm/dev/i8042.hpp"
#include "vmm/dev/io_apic.hpp"
#include "vmm/dev/irq_router.hpp"
#include "vmm/dev/local_apic.hpp"
#include "vmm/dev/pci_bridges.hpp"
#include "vmm/dev/pci_host.hpp"
#include "vmm/dev/pic_8259.hpp"
#include "vmm/dev/pit_8254.hpp"
#include "vmm/dev/post_port.hpp"
#include "vmm/dev/power_control.hpp"
#include "vmm/dev/reset_control.hpp"
#include "vmm/dev/rtc_mc146818.hpp"
#include "vmm/dev/system_control_a.hpp"
#include "vmm/dev/uart_16550.hpp"
#include "vmm/dev/vga_text.hpp"
#include "vmm/guest_memory.hpp"
#include "vmm/interrupts.hpp"
#include "vmm/loader/boot_image.hpp"
#include "vmm/vcpu.hpp"
#include "vmm/vm_clock.hpp"

namespace bulkhead {

// What a VM asks of the hypervisor around it. Called on the core that runs the VM, in its compartment.
class Surroundings {
  public:
    // A character left the VM's first serial port.
    virtual void serial_output(u16 vm, u8 character) = 0;
    // A vCPU of it has something to look at.
    virtual void wake(u16 vm, unsigned vcpu) = 0;

  protected:
    ~Surroundings() = default;
};

enum class StopReason : u8 { none, powered_off, reset, crashed };

class VirtualMachine final : private Waker, private PowerControl, private CharacterSink {
  public:
    static constexpr usize max_vcpus = 16;

    struct Parameters {
        u16 number = 0;  // below 64; different for each VM
        unsigned vcpus = 1;
        u64 memory = 0;  // bytes of RAM
        ApicAssist assist = ApicAssist::none;
    };

    // A VM without processors and memory; see VmBuilder (vm_builder.hpp).
    VirtualMachine(const PhysicalMachine& machine, Surroundings& surroundings, const Parameters& parameters);
    VirtualMachine(const VirtualMachine&) = delete;
    VirtualMachine& operator=(const VirtualMachine&) = delete;

    // While it is built.
    [[nodiscard]] Result<> wire();
    [[nodiscard]] Result<> add_vcpu(Vcpu& vcpu, LocalApic& apic);
    void set_text_buffer(MutableBytes buffer) { vga_.set_buffer(buffer); }

    // Power-on: every chip after RESET, RAM cleared, the images loaded, the clock started. The caller resets
    // the processors, the first with the state returned. On failure the VM must not run.
    [[nodiscard]] Result<StartState> power_on(const BootImages& images);

    // --- Of its state ---

    [[nodiscard]] bool stopped() const { return stop_ != StopReason::none; }
    [[nodiscard]] StopReason stop_reason() const { return stop_; }
    [[nodiscard]] std::string_view stop_text() const { return stop_text_; }
    void pause() { clock_.pause(); }
    void resume() { clock_.resume(); }

    // --- For its processors ---

    [[nodiscard]] const PhysicalMachine& machine() const { return machine_; }
    [[nodiscard]] VmClock& clock() { return clock_; }
    [[nodiscard]] const Bus& ports() const { return ports_; }
    [[nodiscard]] const Bus& mmio() const { return mmio_; }
    [[nodiscard]] GuestMemory& memory() { return memory_; }
    [[nodiscard]] const GuestMemory& memory() const { return memory_; }
    [[nodiscard]] Interrupts& interrupts() { return interrupts_; }
    [[nodiscard]] ApicAssist apic_assist() const { return parameters_.assist; }
    [[nodiscard]] u16 number() const { return parameters_.number; }
    [[nodiscard]] Vector acknowledge_pic() { return Vector(pic_.acknowledge()); }

    [[nodiscard]] Ticks device_deadline();
    void devices_touched() { deadline_known_ = false; }
    void expire_devices(Ticks now);

    void reset_machine() override { stop(StopReason::reset, "reset"); }
    void triple_fault(Vcpu& vcpu);
    // The VM stops by a fault: its own, or what we cannot emulate. `why` is for the operator.
    void crash(Vcpu& vcpu, std::string_view why);

    // --- For the operator ---

    [[nodiscard]] std::span<Vcpu* const> vcpus() const { return {vcpus_.begin(), vcpus_.size()}; }
    // A character typed at the first serial port; false when its FIFO is full.
    [[nodiscard]] bool serial_input(u8 character);
    // False if the guest does not listen to it.
    bool press_power_button();
    [[nodiscard]] const VgaText& screen() const { return vga_; }

  private:
    void wake(unsigned vcpu) override { surroundings_.wake(parameters_.number, vcpu); }
    void power_off() override { stop(StopReason::powered_off, "powered off"); }
    void write(u8 character) override { surroundings_.serial_output(parameters_.number, character); }
    void stop(StopReason reason, std::string_view text);

    const PhysicalMachine& machine_;
    Surroundings& surroundings_;
    Parameters parameters_;
    VmClock clock_;
    GuestMemory memory_;
    Bus ports_{0x10000};
    Bus mmio_{~u64{0}};
    Interrupts interrupts_;
    IoApic io_apic_;
    Pic8259 pic_;
    IrqRouter router_;
    Uart16550 com1_;
    Pit8254 pit_;
    RtcMc146818 rtc_;
    I8042 keyboard_;
    SystemControlA port_92_;
    PostPort post_;
    AcpiPm pm_;
    ResetControl reset_control_;
    PciHost pci_;
    PciBridge host_bridge_, isa_bridge_, power_bridge_;
    VgaText vga_;

    FixedVector<Vcpu*, max_vcpus> vcpus_;
    FixedVector<Device*, 16> devices_;  // all chips, to reset and to keep time for
    Ticks deadline_ = never;
    bool deadline_known_ = false;
    StopReason stop_ = StopReason::none;
    FixedString<200> stop_text_;
};

}  // namespace bulkhead
