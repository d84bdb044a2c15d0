// PCI configuration space with the machine's three functions, and the chips of one register on a bus of
// ports.
#include "tests/fakes/fake_power_control.hpp"
#include "tests/fuzz/device.hpp"
#include "vmm/dev/bus.hpp"
#include "vmm/dev/pci_bridges.hpp"
#include "vmm/dev/pci_host.hpp"
#include "vmm/dev/post_port.hpp"
#include "vmm/dev/reset_control.hpp"
#include "vmm/dev/system_control_a.hpp"

using namespace bulkhead;

namespace {

// The bus as one device: accesses wander over neighbours, gaps and its end.
struct Ports final : Device {
    Ports() {
        host.become_host_bridge();
        isa.become_isa_bridge();
        power_management.become_power_management(0x600, 9);
        MUST(pci.attach(0, 0, host) && pci.attach(1, 0, isa) && pci.attach(1, 3, power_management));
        MUST(bus.attach(0x20, 8, pci) && bus.attach(0x28, 1, post) && bus.attach(0x2A, 1, port_92));
        MUST(bus.attach(0xFFFE, 2, post));
    }
    static u64 address(u64 offset) { return offset < 0x20 ? 0x18 + offset : 0xFFE0 + offset; }
    std::string_view name() const override { return "ports"; }
    u64 read(u64 offset, unsigned size) override {
        const u64 value = bus.read(address(offset), size);
        MUST((value & ~all_ones(size)) == 0);
        return value;
    }
    void write(u64 offset, unsigned size, u64 value) override { bus.write(address(offset), size, value); }
    void reset() override {
        pci.reset();
        post.reset();
        port_92.reset();
        reset_control.reset();
    }

    FakePowerControl power;
    ResetControl reset_control{power};
    SystemControlA port_92{power};
    PostPort post;
    PciHost pci{reset_control};
    PciBridge host, isa, power_management;
    Bus bus{0x10000};
};

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 0x40;
    Device& device() { return ports; }
    void keep(Bench& other) { ports.power.resets = other.ports.power.resets; }
    u64 visible() { return ports.power.resets; }
    Ports ports;
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    fuzz::run_device<Bench>(in);
}
