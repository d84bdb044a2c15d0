// One virtual PC: its chips wired up, its memory and its processors. Everything in it lives in the VM's
// arena; what it wants of the outside goes through Surroundings.
//
// Who may call what. Its vCPUs run on any number of cores at the same time, each on one. A core that runs one
// of them, and the core that manages the VM, may call everything here but what is marked "stopped": that is
// for the managing core while no vCPU is in Vcpu::run().
//
// Locks, in the order in which they are taken:
//   chips    every chip on the buses but the I/O APIC, and what they share: the interrupt router, the 8259As,
//            the ports by which the guest stops the VM. Held for one access, or for at most
//            `most_bytes_at_once` of a string instruction; never while the guest's memory is walked.
//   I/O APIC its own registers (io_apic.hpp). An EOI comes here without the chips' lock.
//   stop     why the VM stopped.
// Messages to local APICs take none: those are atomic (local_apic.hpp). CPUID, MSRs, local APICs and nested
// faults that reach no chip therefore wait for nobody. Under any of these locks Surroundings may be called.
#pragma once

#include <atomic>
#include <optional>
#include <span>
#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "kernel/mem/arena.hpp"
#include "kernel/mem/page_table.hpp"
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

struct ScreenText;

// What a VM asks of the hypervisor around it. Called on any core that runs a vCPU of it or manages it, in its
// compartment, with locks of the VM held: neither may call back into the VM.
class Surroundings {
  public:
    // A character left the VM's first serial port. One call at a time for each VM.
    virtual void serial_output(u16 vm, u8 character) = 0;
    // The vCPU has something to look at: before it next enters the guest or blocks, Vcpu::run() must be
    // called anew or, where it is being called, the guest be left. That is: remember it (see Vcpu::run()),
    // and kick the vCPU's core if it is another one than this. On the same core remembering is enough: the
    // vCPU is then either the caller itself, which looks before it enters the guest, or not running.
    // What there is to look at has been stored before the call; the call is cheap and harmless when in vain.
    virtual void wake(u16 vm, unsigned vcpu) = 0;
    // What the host interrupt that waits on this core is: the core's timer (`tick`), a kick, a device's.
    [[nodiscard]] virtual HostCause waiting_interrupt() const { return HostCause::device; }
    // A machine check of the hardware's has ended a turn of the VM's on this core. False: the VM cannot go
    // on.
    virtual bool survives_machine_check(u16 vm) = 0;

  protected:
    ~Surroundings() = default;
};

enum class StopReason : u8 { none, powered_off, reset, crashed };

class VirtualMachine final : private Waker, private PowerControl, private CharacterSink {
  public:
    static constexpr usize max_vcpus = 16;
    // Bytes of a string instruction that reach a chip without another vCPU having its turn.
    static constexpr usize most_bytes_at_once = 64;
    // Stands for the managing core where a vCPU's number is asked for.
    static constexpr unsigned no_vcpu = ~0U;

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

    // Stopped: while it is built.
    [[nodiscard]] Result<> wire();
    [[nodiscard]] Result<> add_vcpu(Vcpu& vcpu, LocalApic& apic);
    void set_text_buffer(MutableBytes buffer) { vga_.set_buffer(buffer); }
    void set_nested_table(const NestedPageTable& table) { nested_table_ = table; }

    // Stopped. Power-on: every chip after RESET, RAM cleared, the images loaded, the clock started. The
    // caller resets the processors, the first with the state returned. On failure the VM must not run.
    [[nodiscard]] Result<StartState> power_on(const BootImages& images);
    // What was loaded last is no firmware: processors and chips are to be found as one leaves them.
    [[nodiscard]] bool starts_without_firmware() const { return starts_without_firmware_; }

    // --- Of its state ---

    // The first to stop the VM wins. By the time anybody sees that it is stopped the text is complete, and it
    // stays until the next power-on. Every vCPU returns RunResult::stopped then, kicked where need be.
    [[nodiscard]] bool stopped() const { return stop_reason() != StopReason::none; }
    [[nodiscard]] StopReason stop_reason() const { return stop_.load(std::memory_order_acquire); }
    [[nodiscard]] std::string_view stop_text() const {
        return stopped() ? stop_text_.view() : std::string_view();
    }
    // Whose fault it was, if it was one; else no_vcpu.
    [[nodiscard]] unsigned stopped_by() const { return stopped() ? stop_vcpu_ : no_vcpu; }
    // Stopped: the clock stands still, or goes on.
    void pause() { clock_.pause(); }
    void resume() { clock_.resume(); }

    // --- For its processors ---

    [[nodiscard]] const PhysicalMachine& machine() const { return machine_; }
    [[nodiscard]] VmClock& clock() { return clock_; }
    // What is wired up where; accesses go through the functions below.
    [[nodiscard]] const Bus& ports() const { return ports_; }
    [[nodiscard]] const Bus& mmio() const { return mmio_; }
    // Accesses by the vCPU of that number. size: 1, 2 or 4 for ports, up to 8 for memory; `bytes`: a whole
    // number of elements, at most most_bytes_at_once of them.
    [[nodiscard]] u32 port_read(Port port, unsigned size, unsigned vcpu);
    void port_write(Port port, unsigned size, u32 value, unsigned vcpu);
    void port_read_string(Port port, unsigned size, MutableBytes bytes, unsigned vcpu);
    void port_write_string(Port port, unsigned size, Bytes bytes, unsigned vcpu);
    [[nodiscard]] u64 mmio_read(u64 address, unsigned size, unsigned vcpu);
    void mmio_write(u64 address, unsigned size, u64 value, unsigned vcpu);
    [[nodiscard]] GuestMemory& memory() { return memory_; }
    [[nodiscard]] const GuestMemory& memory() const { return memory_; }
    [[nodiscard]] Interrupts& interrupts() { return interrupts_; }
    [[nodiscard]] bool survives_machine_check() {
        return surroundings_.survives_machine_check(parameters_.number);
    }
    [[nodiscard]] ApicAssist apic_assist() const { return parameters_.assist; }
    [[nodiscard]] u16 number() const { return parameters_.number; }
    [[nodiscard]] Vector acknowledge_pic() {
        const LockGuard guard(chips_);
        return Vector(pic_.acknowledge());
    }

    [[nodiscard]] HostCause waiting_interrupt() const { return surroundings_.waiting_interrupt(); }

    // The chips' time is kept by one vCPU, lest all of them exit for it. Whoever else brings the chips'
    // deadline forward wakes that one.
    static constexpr unsigned timekeeper = 0;
    [[nodiscard]] Ticks device_deadline() const { return deadline_.load(std::memory_order_relaxed); }
    void expire_devices(Ticks now);

    void reset_machine() override { stop(StopReason::reset, "reset"); }
    void triple_fault(Vcpu& vcpu);
    // The VM stops by a fault: its own, or what we cannot emulate. `why` is for the operator.
    void crash(Vcpu& vcpu, std::string_view why);
    // Stopped by what happens around it. Any core.
    void give_up(std::string_view why) { stop(StopReason::crashed, why); }

    // --- For the operator ---

    [[nodiscard]] std::span<Vcpu* const> vcpus() const { return {vcpus_.begin(), vcpus_.size()}; }
    // A character typed at the first serial port; false when its FIFO is full.
    [[nodiscard]] bool serial_input(u8 character);
    // False if the guest does not listen to it.
    bool press_power_button();
    // Scan codes of set 2: all or none. False when the keyboard's buffer has no room for them, or the guest
    // has told it to be silent.
    [[nodiscard]] bool press_keys(std::span<const u8> scan_codes);
    // The text screen; no columns and rows while a graphics mode is set.
    void read_screen(ScreenText& out);
    // The table that the guest's accesses go through; none while it is built.
    [[nodiscard]] const std::optional<NestedPageTable>& nested_table() const { return nested_table_; }

  private:
    void wake(unsigned vcpu) override { surroundings_.wake(parameters_.number, vcpu); }
    void power_off() override { stop(StopReason::powered_off, "powered off"); }
    void write(u8 character) override { surroundings_.serial_output(parameters_.number, character); }
    void stop(StopReason reason, std::string_view text, unsigned vcpu = no_vcpu);
    void accessed(const Device* device, unsigned vcpu);
    [[nodiscard, gnu::noinline]] u32 read_ports(u64 address, unsigned size, unsigned vcpu);
    [[gnu::noinline]] void write_ports(u64 address, unsigned size, u32 value, unsigned vcpu);
    void find_deadline();

    const PhysicalMachine& machine_;
    Surroundings& surroundings_;
    Parameters parameters_;
    VmClock clock_;
    ChipClock chip_clock_;
    GuestMemory memory_;
    std::optional<NestedPageTable> nested_table_;
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

    bool starts_without_firmware_ = false;

    TicketLock chips_;
    // The earliest deadline of a chip, and whose it is. Written under chips_.
    std::atomic<Ticks> deadline_{never};
    const Device* earliest_ = nullptr;

    TicketLock stop_lock_;
    std::atomic<StopReason> stop_{StopReason::none};
    FixedString<200> stop_text_;
    unsigned stop_vcpu_ = no_vcpu;
};

}  // namespace bulkhead
