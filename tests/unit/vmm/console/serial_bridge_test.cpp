#include "vmm/console/serial_bridge.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "tests/unit/vmm/console/fake_management.hpp"

using namespace bulkhead;

namespace {

struct FakePort final : SerialPort {
    std::string sent;
    std::string incoming;
    size_t room = 0;

    bool can_send() override { return room > 0; }
    void send(u8 byte) override {
        REQUIRE(room > 0);
        --room;
        sent += static_cast<char>(byte);
    }
    std::optional<u8> receive() override {
        if (incoming.empty()) return std::nullopt;
        const u8 byte = static_cast<u8>(incoming[0]);
        incoming.erase(0, 1);
        return byte;
    }
};

struct Bench {
    FakePort port;
    FakeManagement management;
    SerialBridge bridge{port, management, VmId(1)};
    FakeManagement::Vm& vm = management.add(1, "web");

    void guest(std::string_view text) {
        vm.ring->write({reinterpret_cast<const u8*>(text.data()), text.size()});
    }
};

}  // namespace

TEST_CASE("a bridge moves the VM's bytes to the port while that accepts them") {
    Bench bench;
    bench.guest(std::string_view("a\x1b[2J\0\xFF", 7));
    CHECK_FALSE(bench.bridge.poll());
    CHECK(bench.port.sent.empty());
    bench.port.room = 3;
    CHECK_FALSE(bench.bridge.poll());
    CHECK(bench.port.sent == "a\x1b[");
    bench.port.room = 100;
    CHECK_FALSE(bench.bridge.poll());
    CHECK(bench.port.sent == std::string("a\x1b[2J\0\xFF", 7));
    CHECK(bench.bridge.dropped_output() == 0);
}

TEST_CASE("a bridge moves the port's bytes to the VM, in order, and keeps one the VM has no room for") {
    Bench bench;
    bench.port.incoming = "root\r";
    bench.vm.fifo_room = 2;
    CHECK_FALSE(bench.bridge.poll());
    CHECK(bench.vm.received == "ro");
    CHECK(bench.port.incoming == "t\r");  // what the port's own buffer keeps
    bench.vm.fifo_room = 100;
    CHECK_FALSE(bench.bridge.poll());
    CHECK(bench.vm.received == "root\r");
    CHECK(bench.bridge.dropped_input() == 0);
}

TEST_CASE("one poll of a bridge moves a bounded number of bytes each way") {
    Bench bench;
    bench.vm.storage.assign(4096, 0);
    bench.vm.ring = std::make_unique<ConsoleRing>(bench.vm.storage);
    bench.guest(std::string(1000, 'o'));
    bench.port.incoming = std::string(1000, 'i');
    bench.port.room = 10000;
    bench.vm.fifo_room = 10000;
    CHECK(bench.bridge.poll());
    CHECK(bench.port.sent.size() == SerialBridge::poll_bytes);
    CHECK(bench.vm.received.size() == SerialBridge::poll_bytes);
    int polls = 1;
    while (bench.bridge.poll()) ++polls;
    CHECK(polls <= 1000 / static_cast<int>(SerialBridge::poll_bytes) + 1);
    CHECK(bench.port.sent == std::string(1000, 'o'));
    CHECK(bench.vm.received == std::string(1000, 'i'));
}

TEST_CASE("a line too slow for a VM loses the oldest output, counted; one attached elsewhere loses nothing") {
    Bench bench;
    bench.guest(std::string(100, 'x'));  // into 64 bytes
    bench.port.room = 1000;
    bench.bridge.poll();
    CHECK(bench.port.sent.size() == 64);
    CHECK(bench.bridge.dropped_output() == 36);
    bench.vm.ring->rewind();
    u8 bytes[100];
    CHECK(bench.vm.ring->read(bytes) == 64);
}

TEST_CASE("input for a VM that is off is dropped and counted; started again, its output begins anew") {
    Bench bench;
    bench.port.room = 1000;
    bench.guest("before");
    bench.bridge.poll();
    auto ring = std::move(bench.vm.ring);
    bench.vm.fifo_room = 0;
    bench.port.incoming = "lost";
    CHECK_FALSE(bench.bridge.poll());
    CHECK(bench.bridge.dropped_input() == 4);
    CHECK(bench.port.incoming.empty());
    bench.vm.ring = std::make_unique<ConsoleRing>(bench.vm.storage);
    bench.vm.fifo_room = 100;
    bench.port.incoming = "x";
    bench.guest("now");
    bench.bridge.poll();
    CHECK(bench.port.sent == "beforenow");
    CHECK(bench.vm.received == "x");
}
