// An operator's session: keys, output of guests, notices, VMs that come, go and refuse. At the prompt no byte
// of a guest's reaches the terminal but as plain text.
#include "tests/fuzz/fuzz.hpp"
#include "tests/unit/vmm/console/fake_management.hpp"
#include "vmm/console/session.hpp"

using namespace bulkhead;

namespace {

// Counts, and looks for what the hypervisor never sends by itself.
class Screen final : public Sink {
  public:
    void write(std::string_view text) override {
        bytes += text.size();
        if (!watching) return;
        for (const char c : text) {
            // The guest's marker: DC1 is in no sequence of our own.
            MUST(c != '\x11');
        }
    }
    u64 bytes = 0;
    bool watching = true;
};

std::string_view word(fuzz::Input& in) {
    static constexpr std::string_view words[] = {
        "list",    "info",  "console", "start", "pause",   "unpause", "reset",    "shutdown",
        "destroy", "dmesg", "exits",   "help",  "version", "--json",  "reboot",   "poweroff",
        "clear",   "top",   "uptime",  "web",   "1",       "db",      "\x11\x1b", "-f",
        "--",      "\"",    "\\",      "  ",    "send",    "screen"};
    return words[in.byte() % std::size(words)];
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    FakeManagement management;
    management.add(1, "web");
    management.add(2, "db", VmState::crashed).reason = "vCPU 0: \x1b[2J\x11";
    management.log_line(1, LogLevel::warning, "a line");
    Screen screen;
    Session session(screen, management, 0x1D);
    session.start();
    while (!in.empty()) {
        const u64 before = screen.bytes;
        screen.watching = !session.attached();
        switch (in.byte() % 12) {
            case 0: session.input(in.byte()); break;
            case 1:
                for (const char c : in.text(in.byte() % 32)) {
                    screen.watching = !session.attached();
                    session.input(static_cast<u8>(c));
                }
                break;
            case 2:
            case 3:
                for (const char c : word(in)) session.input(static_cast<u8>(c));
                session.input(' ');
                break;
            case 4: session.input('\r'); break;
            case 5: {
                const Bytes bytes = in.take(in.byte());
                for (auto& vm : management.vms) vm.ring->write(bytes);
                break;
            }
            case 6: (void)session.poll(); break;
            case 7: session.guest_output(VmId(in.byte() % 4), in.take(in.byte())); break;
            case 8: session.notify(in.text(in.byte())); break;
            case 9:
                switch (in.byte() % 6) {
                    case 0: management.error = "no\x1b[2J"; break;
                    case 1: management.error.clear(); break;
                    case 2:
                        for (auto& vm : management.vms) vm.fifo_room = in.byte();
                        break;
                    case 3:
                        if (!management.vms.empty()) management.vms.pop_back();
                        break;
                    case 4:
                        if (management.vms.size() < 8) {
                            management.add(static_cast<u16>(3 + management.calls.size() % 100), "new",
                                           static_cast<VmState>(in.byte() % 8));
                        }
                        break;
                    default: management.log_line(2, LogLevel::info, "another");
                }
                break;
            case 10: session.input('\t'); break;
            default: session.input(0x1D);
        }
        MUST(!session.attached() || management.find(*session.attached()) != nullptr || true);
        // What one key, one line of a log or one piece of guest output can make of work.
        MUST(screen.bytes - before < 200'000);
    }
}
