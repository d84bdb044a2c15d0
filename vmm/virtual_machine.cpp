#include "vmm/virtual_machine.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "vmm/console/management.hpp"
#include "vmm/loader/bios_state.hpp"
#include "vmm/platform.hpp"

namespace bulkhead {

namespace {

std::array<IrqLine*, Pic8259::inputs> inputs_of(Pic8259& pic) {
    std::array<IrqLine*, Pic8259::inputs> lines{};
    for (unsigned i = 0; i < lines.size(); ++i) lines[i] = &pic.input(i);
    return lines;
}

std::array<IrqLine*, IoApic::pin_count> pins_of(IoApic& io_apic) {
    std::array<IrqLine*, IoApic::pin_count> lines{};
    for (unsigned i = 0; i < lines.size(); ++i) lines[i] = &io_apic.line(i);
    return lines;
}

}  // namespace

VirtualMachine::VirtualMachine(const PhysicalMachine& machine, Surroundings& surroundings,
                               const Parameters& parameters)
    : machine_(machine),
      surroundings_(surroundings),
      parameters_(parameters),
      clock_(machine),
      chip_clock_(clock_),
      interrupts_(*this),
      io_apic_(interrupts_),
      pic_(interrupts_.pic_output()),
      router_(inputs_of(pic_), pins_of(io_apic_)),
      com1_(chip_clock_, router_.line(platform::irq_com1), *this),
      pit_(chip_clock_, router_.line(platform::irq_pit)),
      rtc_(chip_clock_, router_.line(platform::irq_rtc), machine.wall_clock()),
      keyboard_(router_.line(platform::irq_keyboard), router_.line(platform::irq_mouse), *this),
      port_92_(*this),
      pm_(chip_clock_, router_.line(platform::irq_sci), *this),
      reset_control_(*this),
      pci_(reset_control_),
      vga_(chip_clock_) {}

// Which chip answers where: the map of the virtual PC is in platform.hpp.
Result<> VirtualMachine::wire() {
    struct Region {
        u64 base;
        u64 length;
        Device* device;
        u64 offset = 0;
    };
    using namespace platform;
    const Region regions[] = {
        {pic_master.raw(), 2, &pic_, 0},
        {pic_slave.raw(), 2, &pic_, 2},
        {elcr.raw(), 2, &pic_, 4},
        {pit.raw(), 4, &pit_},
        {port_b.raw(), 1, &pit_, 4},
        {keyboard_data.raw(), 1, &keyboard_},
        {keyboard_command.raw(), 1, &keyboard_, 1},
        {rtc_index.raw(), 2, &rtc_},
        {post_code.raw(), 1, &post_},
        {fast_a20.raw(), 1, &port_92_},
        {smi_command.raw(), AcpiPm::smi_length, &pm_, AcpiPm::smi_command},
        {com1.raw(), 8, &com1_},
        {pm_base.raw(), AcpiPm::block_length, &pm_},
        {pci_config_address.raw(), 8, &pci_},
    };
    for (const Region& region : regions) {
        if (auto attached = ports_.attach(region.base, region.length, *region.device, region.offset);
            !attached) {
            return attached;
        }
    }
    host_bridge_.become_host_bridge();
    isa_bridge_.become_isa_bridge();
    power_bridge_.become_power_management(pm_base.raw(), irq_sci);
    struct Place {
        unsigned device, function;
        PciFunction* what;
    };
    const Place places[] = {{0, 0, &host_bridge_}, {1, 0, &isa_bridge_}, {1, 3, &power_bridge_}};
    for (const Place& place : places) {
        if (auto attached = pci_.attach(place.device, place.function, *place.what); !attached)
            return attached;
    }
    for (const VgaText::PortRange& range : VgaText::port_ranges) {
        if (auto attached = ports_.attach(range.base, range.length, vga_, range.offset); !attached)
            return attached;
    }
    Device* const chips[] = {&io_apic_, &pic_,  &com1_, &pit_,           &rtc_, &keyboard_,
                             &port_92_, &post_, &pm_,   &reset_control_, &pci_, &vga_};
    for (Device* chip : chips) {
        if (!devices_.push_back(chip)) return fail("the VM has more chips than it has room for; report this");
    }
    // The local APICs' EOI messages go there.
    if (!interrupts_.add(io_apic_))
        return fail("the VM has more I/O APICs than it has room for; report this");
    return mmio_.attach(io_apic, io_apic_size, io_apic_);
}

Result<> VirtualMachine::add_vcpu(Vcpu& vcpu, LocalApic& apic) {
    if (!vcpus_.push_back(&vcpu) || !interrupts_.add(apic)) {
        return fail("{} vCPUs are too many for a VM", vcpus_.size() + 1);
    }
    return {};
}

Result<StartState> VirtualMachine::power_on(const BootImages& images) {
    stop_.store(StopReason::none, std::memory_order_relaxed);
    stop_text_.clear();
    clock_.pause();
    clock_.restart();
    chip_clock_.restart();
    for (const GuestMemory::Range& range : memory_.ranges()) std::memset(range.host, 0, range.length);
    for (Device* device : devices_) device->reset();
    rtc_.set_wall_clock(machine_.wall_clock());
    rtc_.set_memory_size(std::min(parameters_.memory, platform::mmio_hole),
                         parameters_.memory - std::min(parameters_.memory, platform::mmio_hole));

    u32 apic_ids[max_vcpus];
    for (u32 i = 0; i < vcpus_.size(); ++i) apic_ids[i] = i;
    const CpuidResult signature = vcpus_[0]->cpuid(1);
    const auto start = load_guest(memory_, images,
                                  {.apic_ids = {apic_ids, vcpus_.size()},
                                   .cpu_signature = signature.eax,
                                   .cpu_features = signature.edx});
    if (!start) return start;
    starts_without_firmware_ = start->mode != StartState::Mode::reset_vector;
    if (starts_without_firmware_) {
        for (const PortWrite& write : bios_port_writes()) ports_.write(write.port.raw(), 1, write.value);
    }
    clock_.resume();
    const LockGuard guard(chips_);
    find_deadline();
    return start;
}

// --- Accesses to chips, and their time
// ---------------------------------------------------------------------

u32 VirtualMachine::port_read(Port port, unsigned size, unsigned vcpu) {
    const u64 address = port.raw();
    const Bus::Region* region = ports_.find(address);
    if (region == nullptr && size == 1) return 0xFF;
    if (region == nullptr || address + size > region->base + region->length)
        return read_ports(address, size, vcpu);
    const LockGuard guard(chips_);
    const u64 value = region->device->read(address - region->base + region->device_offset, size);
    if (region->timed) accessed(region->device, vcpu);
    return static_cast<u32>(value) & (~u32{0} >> (32 - 8 * size));
}

void VirtualMachine::port_write(Port port, unsigned size, u32 value, unsigned vcpu) {
    const u64 address = port.raw();
    const Bus::Region* region = ports_.find(address);
    if (region == nullptr && size == 1) return;
    if (region == nullptr || address + size > region->base + region->length)
        return write_ports(address, size, value, vcpu);
    const LockGuard guard(chips_);
    region->device->write(address - region->base + region->device_offset, size,
                          value & (~u32{0} >> (32 - 8 * size)));
    if (region->timed) accessed(region->device, vcpu);
}

// Where not one chip alone is reached.
u32 VirtualMachine::read_ports(u64 address, unsigned size, unsigned vcpu) {
    const LockGuard guard(chips_);
    const Device* touched = nullptr;
    const u64 value = ports_.read(address, size, touched);
    accessed(touched, vcpu);
    return static_cast<u32>(value);
}

void VirtualMachine::write_ports(u64 address, unsigned size, u32 value, unsigned vcpu) {
    const LockGuard guard(chips_);
    const Device* touched = nullptr;
    ports_.write(address, size, value, touched);
    accessed(touched, vcpu);
}

void VirtualMachine::port_read_string(Port port, unsigned size, MutableBytes bytes, unsigned vcpu) {
    const LockGuard guard(chips_);
    const Bus::Region* region = ports_.find(port.raw());
    if (region != nullptr && size == 1) {
        const u64 offset = port.raw() - region->base + region->device_offset;
        const usize count = bytes.size() < most_bytes_at_once ? bytes.size() : most_bytes_at_once;
        region->device->read_string(offset, bytes.first(count));
        if (region->timed) accessed(region->device, vcpu);
        return;
    }
    const Device* touched = nullptr;
    for (usize at = 0; at + size <= bytes.size() && at < most_bytes_at_once; at += size) {
        const u64 value = ports_.read(port.raw(), size, touched);
        std::memcpy(&bytes[at], &value, size);
    }
    accessed(touched, vcpu);
}

void VirtualMachine::port_write_string(Port port, unsigned size, Bytes bytes, unsigned vcpu) {
    const LockGuard guard(chips_);
    const Bus::Region* region = ports_.find(port.raw());
    if (region != nullptr && size == 1) {
        const u64 offset = port.raw() - region->base + region->device_offset;
        const usize count = bytes.size() < most_bytes_at_once ? bytes.size() : most_bytes_at_once;
        region->device->write_string(offset, bytes.first(count));
        if (region->timed) accessed(region->device, vcpu);
        return;
    }
    const Device* touched = nullptr;
    for (usize at = 0; at + size <= bytes.size() && at < most_bytes_at_once; at += size) {
        u64 value = 0;
        std::memcpy(&value, &bytes[at], size);
        ports_.write(port.raw(), size, value, touched);
    }
    accessed(touched, vcpu);
}

namespace {

// The I/O APIC has a lock of its own and no timer.
bool in_io_apic(u64 address) {
    return address - platform::io_apic < platform::io_apic_size;
}

// Nobody answers there. The map of the bus does not change while the VM runs: no lock is needed to look at
// it.
bool is_hole(const Bus& bus, u64 address, unsigned size) {
    return bus.find(address) == nullptr && bus.find(address + size - 1) == nullptr;
}

}  // namespace

u64 VirtualMachine::mmio_read(u64 address, unsigned size, unsigned vcpu) {
    if (in_io_apic(address)) return mmio_.read(address, size);
    if (is_hole(mmio_, address, size)) return all_ones(size);
    const LockGuard guard(chips_);
    const Device* touched = nullptr;
    const u64 value = mmio_.read(address, size, touched);
    accessed(touched, vcpu);
    return value;
}

void VirtualMachine::mmio_write(u64 address, unsigned size, u64 value, unsigned vcpu) {
    if (in_io_apic(address)) return mmio_.write(address, size, value);
    if (is_hole(mmio_, address, size)) return;
    const LockGuard guard(chips_);
    const Device* touched = nullptr;
    mmio_.write(address, size, value, touched);
    accessed(touched, vcpu);
}

// A chip's timer may run otherwise than before. Chips do not know one another, so an access to one changes no
// other's deadline. Under chips_.
void VirtualMachine::accessed(const Device* device, unsigned vcpu) {
    const Ticks before = deadline_.load(std::memory_order_relaxed);
    const Ticks due = device != nullptr ? device->deadline() : never;
    if (device == nullptr || (device == earliest_ && due > before)) {
        find_deadline();
    } else if (due < before) {
        earliest_ = device;
        deadline_.store(due, std::memory_order_relaxed);
    }
    if (vcpu != timekeeper && deadline_.load(std::memory_order_relaxed) < before) wake(timekeeper);
}

void VirtualMachine::find_deadline() {
    Ticks earliest = never;
    earliest_ = nullptr;
    for (const Device* device : devices_) {
        const Ticks due = device->deadline();
        if (due >= earliest) continue;
        earliest = due;
        earliest_ = device;
    }
    deadline_.store(earliest, std::memory_order_relaxed);
}

void VirtualMachine::expire_devices(Ticks now) {
    if (device_deadline() > now) return;
    const LockGuard guard(chips_);
    for (Device* device : devices_) {
        if (device->deadline() <= now) device->expire();
    }
    find_deadline();
}

// --- Stopping
// ----------------------------------------------------------------------------------------------

void VirtualMachine::stop(StopReason reason, std::string_view text, unsigned vcpu) {
    {
        // Who comes second waits, and finds the VM stopped when it goes on.
        const LockGuard guard(stop_lock_);
        if (stop_.load(std::memory_order_relaxed) != StopReason::none) return;
        stop_text_ = text;
        stop_vcpu_ = vcpu;
        stop_.store(reason, std::memory_order_release);
    }
    for (unsigned each = 0; each < vcpus_.size(); ++each) wake(each);
}

void VirtualMachine::triple_fault(Vcpu& vcpu) {
    stop(StopReason::reset, "triple fault", vcpu.number());
}

void VirtualMachine::crash(Vcpu& vcpu, std::string_view why) {
    FixedString<200> text;
    print(text, "vCPU {} at {:#x}: {}", vcpu.number(), vcpu.backend().read(Register::rip), why);
    stop(StopReason::crashed, text, vcpu.number());
}

// --- The operator
// ------------------------------------------------------------------------------------------

bool VirtualMachine::serial_input(u8 character) {
    const LockGuard guard(chips_);
    if (com1_.space() == 0) return false;
    com1_.receive(character);
    accessed(&com1_, no_vcpu);
    return true;
}

bool VirtualMachine::press_power_button() {
    const LockGuard guard(chips_);
    const bool heard = pm_.press_power_button();
    accessed(&pm_, no_vcpu);
    return heard;
}

bool VirtualMachine::press_keys(std::span<const u8> scan_codes) {
    const LockGuard guard(chips_);
    const bool taken = keyboard_.press(scan_codes);
    accessed(&keyboard_, no_vcpu);
    return taken;
}

void VirtualMachine::read_screen(ScreenText& out) {
    static_assert(ScreenText::max_columns >= VgaText::max_columns &&
                  ScreenText::max_rows >= VgaText::max_rows);
    out.columns = out.rows = 0;
    out.cursor_visible = false;
    std::memset(out.characters, 0, sizeof out.characters);
    const LockGuard guard(chips_);
    const auto geometry = vga_.geometry();
    if (!geometry) return;
    out.columns = geometry->columns;
    out.rows = geometry->rows;
    for (unsigned row = 0; row < out.rows; ++row) (void)vga_.row(row, out.characters[row]);
    if (const auto cursor = vga_.cursor()) {
        out.cursor_visible = true;
        out.cursor_column = cursor->column;
        out.cursor_row = cursor->row;
    }
}

}  // namespace bulkhead
