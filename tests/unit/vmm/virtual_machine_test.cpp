// The virtual PC's wiring: which chip answers where, and what stops the machine.
#include "vmm/virtual_machine.hpp"

#include "vm_bench.hpp"

using namespace bulkhead;
using namespace bulkhead::platform;

namespace {

u64 in(const VmBench& bench, u16 port, unsigned size = 1) {
    return bench.vm->ports().read(port, size);
}
void out(const VmBench& bench, u16 port, u64 value, unsigned size = 1) {
    bench.vm->ports().write(port, size, value);
}

// A type 1 configuration access.
u32 pci(const VmBench& bench, u32 device, u32 function, u32 offset) {
    out(bench, pci_config_address.raw(), 0x8000'0000 | device << 11 | function << 8 | offset, 4);
    return static_cast<u32>(in(bench, pci_config_data.raw(), 4));
}

u8 cmos(const VmBench& bench, u8 index) {
    out(bench, rtc_index.raw(), index);
    return static_cast<u8>(in(bench, rtc_data.raw()));
}

}  // namespace

TEST_CASE("every port of the map has its chip behind it") {
    VmBench bench;
    const Bus& ports = bench.vm->ports();
    struct Place {
        Port port;
        u64 length;
        std::string_view chip;
    };
    const std::string_view pic = ports.find(0x20)->device->name(), timer = ports.find(0x40)->device->name();
    const Place places[] = {{pic_master, 2, pic},
                            {pic_slave, 2, pic},
                            {elcr, 2, pic},
                            {platform::pit, 4, timer},
                            {port_b, 1, timer},
                            {fast_a20, 1, "system-control-a"},
                            {pm1a_event, pm1_event_length, "acpi-pm"},
                            {pm1a_control, pm1_control_length, "acpi-pm"},
                            {pm_timer, pm_timer_length, "acpi-pm"},
                            {smi_command, 1, "acpi-pm"}};
    for (const Place& place : places) {
        for (u64 i = 0; i < place.length; ++i) {
            const Bus::Region* region = ports.find(place.port.raw() + i);
            CAPTURE(place.port.raw() + i);
            REQUIRE(region != nullptr);
            CHECK(region->device->name() == place.chip);
        }
    }
    for (const u16 port : {0x60, 0x64, 0x70, 0x71, 0x80, 0x3D4, 0x3D5, 0x3DA, 0x3F8, 0x3FF, 0xCF8, 0xCFF})
        CHECK(ports.find(port) != nullptr);
    // And what a PC of this kind has not got is empty.
    for (const u16 port : {0x2F8, 0x3E8, 0x2E8, 0x1F0, 0x170, 0x3F0, 0x378, 0x220, 0x510, 0x5658, 0xC000}) {
        CAPTURE(port);
        CHECK(ports.find(port) == nullptr);
        CHECK(in(bench, port, 4) == 0xFFFF'FFFF);
    }
}

TEST_CASE("each chip answers as itself at its ports") {
    VmBench bench;
    // 8259A: the mask register holds what is written, of each chip its own.
    out(bench, 0x21, 0x5A);
    out(bench, 0xA1, 0xA5);
    CHECK(in(bench, 0x21) == 0x5A);
    CHECK(in(bench, 0xA1) == 0xA5);
    // Edge/level control as the firmware leaves it.
    CHECK((in(bench, 0x4D0) | in(bench, 0x4D1) << 8) == elcr_default);
    // 8254: channel 2 read back through port 61h's output bit.
    out(bench, 0x43, 0xB0);
    out(bench, 0x42, 0x01);
    out(bench, 0x42, 0x00);
    out(bench, 0x61, 1);
    bench.machine.now += bench.machine.tsc_hz() / 100;
    CHECK((in(bench, 0x61) & 0x21) == 0x21);
    // 8042: the self-test.
    out(bench, 0x64, 0xAA);
    CHECK((in(bench, 0x64) & 1) == 1);
    CHECK(in(bench, 0x60) == 0x55);
    // UART: the scratch register.
    out(bench, 0x3FF, 0x77);
    CHECK(in(bench, 0x3FF) == 0x77);
    // POST codes go nowhere.
    out(bench, 0x80, 0x99);
    // VGA: the cursor's register.
    out(bench, 0x3D4, 0x0F);
    out(bench, 0x3D5, 0x42);
    CHECK(in(bench, 0x3D5) == 0x42);
}

TEST_CASE("PCI shows the bridges of the chip set and nothing else") {
    VmBench bench;
    CHECK((pci(bench, 0, 0, 0) & 0xFFFF) == 0x8086);
    CHECK(pci(bench, 0, 0, 8) >> 16 == 0x0600);
    CHECK(pci(bench, 1, 0, 8) >> 16 == 0x0601);
    CHECK(pci(bench, 1, 3, 8) >> 16 == 0x0680);
    CHECK((pci(bench, 1, 3, 0x40) & 0xFFC0) == pm_base.raw());
    for (u32 device = 0; device < 32; ++device) {
        for (u32 function = 0; function < 8; ++function) {
            const bool present =
                (device == 0 && function == 0) || (device == 1 && (function == 0 || function == 3));
            CHECK((pci(bench, device, function, 0) != 0xFFFF'FFFF) == present);
        }
    }
}

TEST_CASE("the RTC knows the machine's time and the VM's memory") {
    VmBench bench;
    // 2023-11-14 22:13:20 UTC.
    const auto number = [](u8 value) { return (value >> 4) * 10 + (value & 15); };
    CHECK(number(cmos(bench, 9)) == 23);
    CHECK(number(cmos(bench, 8)) == 11);
    CHECK(number(cmos(bench, 7)) == 14);
    CHECK(number(cmos(bench, 4)) == 22);
    CHECK(number(cmos(bench, 2)) == 13);
    CHECK(number(cmos(bench, century_index)) == 20);
    // KiB above 1 MiB, at 17h/18h and 30h/31h.
    CHECK((cmos(bench, 0x17) | cmos(bench, 0x18) << 8) == 7 * 1024);
    CHECK((cmos(bench, 0x30) | cmos(bench, 0x31) << 8) == 7 * 1024);
}

TEST_CASE("the PM timer, the PIT and the TSC agree") {
    VmBench bench;
    const u64 before = in(bench, pm_timer.raw(), 4);
    bench.machine.now += bench.machine.tsc_hz();
    CHECK(in(bench, pm_timer.raw(), 4) - before == pm_timer_hz);
}

TEST_CASE("SLP_EN with the sleep type of S5 powers the VM off") {
    VmBench bench;
    out(bench, pm1a_control.raw(), s5_sleep_type << 10, 2);
    CHECK_FALSE(bench.vm->stopped());
    out(bench, pm1a_control.raw(), 1 << 13 | s5_sleep_type << 10, 2);
    CHECK(bench.vm->stop_reason() == StopReason::powered_off);
    CHECK(bench.vm->stop_text() == "powered off");
    CHECK(bench.run() == Vcpu::RunResult::stopped);
}

TEST_CASE("the machine is reset by CF9h, by the keyboard controller, and by port 92h") {
    const auto cf9 = [](VmBench& bench) { out(bench, reset_control.raw(), reset_value); };
    const auto keyboard = [](VmBench& bench) { out(bench, keyboard_command.raw(), 0xFE); };
    const auto port_92 = [](VmBench& bench) { out(bench, fast_a20.raw(), 1); };
    const auto two_steps = [](VmBench& bench) {
        out(bench, reset_control.raw(), 0x02);
        CHECK_FALSE(bench.vm->stopped());
        out(bench, reset_control.raw(), 0x06);
    };
    for (const std::function<void(VmBench&)>& reset :
         {std::function<void(VmBench&)>(cf9), std::function<void(VmBench&)>(keyboard),
          std::function<void(VmBench&)>(port_92), std::function<void(VmBench&)>(two_steps)}) {
        VmBench bench;
        reset(bench);
        CHECK(bench.vm->stop_reason() == StopReason::reset);
        CHECK(bench.vm->stop_text() == "reset");
    }
    // CF8h as a dword that happens to have the bit at CF9h is an address, not a reset.
    VmBench bench;
    out(bench, pci_config_address.raw(), 0x8000'0600, 4);
    CHECK_FALSE(bench.vm->stopped());
}

TEST_CASE("the first reason to stop is the one that is told") {
    VmBench bench;
    out(bench, fast_a20.raw(), 1);
    bench.vm->crash(bench.vcpu(), "later");
    bench.vm->triple_fault(bench.vcpu());
    CHECK(bench.vm->stop_reason() == StopReason::reset);
    CHECK(bench.vm->stop_text() == "reset");
}

TEST_CASE("power-on begins anew: chips, memory, clock and the reason to stop") {
    VmBench bench;
    out(bench, 0x3FF, 0x77);
    bench.put(0x5000, {1, 2, 3});
    bench.machine.now += 5 * bench.machine.tsc_hz();
    bench.vm->crash(bench.vcpu(), "a test");
    CHECK(bench.vm->stop_text().find("a test") != std::string_view::npos);
    bench.power_on();
    CHECK_FALSE(bench.vm->stopped());
    CHECK(bench.vm->stop_text().empty());
    CHECK(bench.byte_at(0x5000) == 0);
    CHECK(in(bench, 0x3FF) != 0x77);
    CHECK(bench.vm->clock().now() == 0);
    CHECK(bench.cpu().tsc_offset == 0 - bench.machine.now);
    // The kernel is back at its place.
    CHECK(bench.byte_at(0x200001) == static_cast<u8>(1 * 5 + 3));
}

TEST_CASE("power-on with no kernel at all is an error, not a machine") {
    VmBench bench;
    const u8 junk[64] = {};
    CHECK_FALSE(bench.vm->power_on({.kernel = junk}));
    CHECK_FALSE(bench.vm->power_on({}));
}

TEST_CASE("characters typed arrive at the serial port until its FIFO is full") {
    VmBench bench;
    out(bench, 0x3FB, 0x03);  // eight data bits
    out(bench, 0x3FA, 0x01);  // FIFO on
    unsigned taken = 0;
    while (taken < 100 && bench.vm->serial_input(static_cast<u8>('a' + taken))) ++taken;
    CHECK(taken == 16);
    for (unsigned i = 0; i < taken; ++i) CHECK(in(bench, 0x3F8) == 'a' + i);
    CHECK(bench.vm->serial_input('x'));
}

TEST_CASE("the power button is heard only by a guest that listens") {
    VmBench bench;
    CHECK_FALSE(bench.vm->press_power_button());
    out(bench, smi_command.raw(), acpi_enable);
    out(bench, pm1a_event.raw() + 2, 1 << 8, 2);
    CHECK(bench.vm->press_power_button());
    CHECK((in(bench, pm1a_event.raw(), 2) & 1 << 8) != 0);
}

TEST_CASE("the text screen is plain memory of the guest's") {
    VmBench bench;
    REQUIRE(bench.vm->memory().at(GuestPhysical(vga_text), 0x8000) != nullptr);
    bench.put(vga_text, {'H', 7, 'i', 7});
    CHECK(bench.byte_at(vga_text) == 'H');
}

TEST_CASE("the earliest deadline follows every access to a chip, by whatever way") {
    VmBench bench;
    VirtualMachine& vm = *bench.vm;
    const auto earliest = [&] {
        Ticks due = never;
        for (const u16 port : {0x20, 0x40, 0x60, 0x70, 0x92, 0x3F8, 0x600, 0xCF8, 0x3D4}) {
            const Ticks one = vm.ports().find(port)->device->deadline();
            if (one < due) due = one;
        }
        return due;
    };
    CHECK(vm.device_deadline() != never);  // channel 0 runs as a BIOS leaves it
    CHECK(vm.device_deadline() == earliest());
    // A short count, a long one, one that is not complete and so stops the channel, the RTC's fast interrupt.
    const auto load = [&](u8 control, u16 count) {
        vm.port_write(Port(0x43), 1, control, 0);
        CHECK(vm.device_deadline() == earliest());
        vm.port_write(Port(0x40), 1, count & 0xFF, 0);
        CHECK(vm.device_deadline() == earliest());
        vm.port_write(Port(0x40), 1, count >> 8, 0);
        CHECK(vm.device_deadline() == earliest());
    };
    load(0x30, 100);
    const Ticks first = vm.device_deadline();
    load(0x30, 60000);
    CHECK(vm.device_deadline() > first);
    vm.port_write(Port(0x43), 1, 0x30, 0);
    CHECK(vm.device_deadline() == earliest());
    vm.port_write(rtc_index, 1, 0x0B, 0);
    vm.port_write(rtc_data, 1, 0x42, 0);
    CHECK(vm.device_deadline() == earliest());
    // An access that reaches two chips: ports 92h and 93h as one word.
    vm.port_write(fast_a20, 2, 0x0202, 0);
    CHECK(vm.device_deadline() == earliest());
    bench.machine.now += bench.machine.tsc_hz();
    vm.expire_devices(vm.clock().now());
    CHECK(vm.device_deadline() == earliest());
    CHECK(vm.device_deadline() > vm.clock().now());
}

TEST_CASE("a VM takes sixteen processors and no more") {
    VmBench bench(ApicAssist::none, 16);
    CHECK(bench.vm->vcpus().size() == 16);
    const auto refused = bench.vm->add_vcpu(bench.vcpu(0), bench.apic(0));
    REQUIRE_FALSE(refused);
    CHECK(std::string(refused.error().text.view()).find("17 vCPUs are too many") == 0);
    for (unsigned i = 0; i < 16; ++i) {
        CHECK(bench.apic(i).id() == i);
        CHECK(bench.apic(i).is_bootstrap() == (i == 0));
        CHECK(bench.vcpu(i).cpuid(1).ebx >> 24 == i);
    }
}

TEST_CASE("MADT and MP table list the processors that there are, by the IDs that they have") {
    for (const unsigned count : {1U, 2U, 3U, 8U, 9U, 15U, 16U}) {
        CAPTURE(count);
        VmBench bench(ApicAssist::none, count);
        const auto get = [&](u64 address, unsigned size) {
            u64 value = 0;
            for (unsigned i = 0; i < size; ++i) value |= u64{bench.byte_at(address + i)} << (8 * i);
            return value;
        };
        std::vector<u64> expected(count);
        for (unsigned i = 0; i < count; ++i) expected[i] = bench.apic(i).id();

        std::vector<u64> listed;
        const u64 configuration = get(mp_table + 4, 4);
        for (u64 at = configuration + 44; bench.byte_at(at) == 0; at += 20) {
            CHECK(bench.byte_at(at + 3) == (listed.empty() ? 3 : 1));
            listed.push_back(get(at + 1, 1));
        }
        CHECK(listed == expected);

        // RSDP, XSDT, "APIC".
        listed.clear();
        const u64 xsdt = get(rsdp + 24, 8);
        for (u64 entry = xsdt + 36; entry < xsdt + get(xsdt + 4, 4); entry += 8) {
            const u64 table = get(entry, 8);
            if (get(table, 4) != 0x43495041) continue;
            for (u64 at = table + 44; at < table + get(table + 4, 4); at += bench.byte_at(at + 1)) {
                if (bench.byte_at(at) != 0) continue;
                CHECK(get(at + 4, 4) == 1);
                listed.push_back(get(at + 3, 1));
            }
        }
        CHECK(listed == expected);
    }
}
