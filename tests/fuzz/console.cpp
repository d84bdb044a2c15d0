// An operator's session: keys, output of guests, notices, VMs that come, go and refuse. At the prompt no byte
// of a guest's reaches the terminal but as plain text.
#include "tests/fuzz/fuzz.hpp"
#include "tests/unit/vmm/console/fake_management.hpp"
#include "vmm/console/session.hpp"

using namespace bulkhead;
using fuzz::Noise;
using namespace std::string_view_literals;

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

constexpr unsigned exit_reason_count = static_cast<unsigned>(ExitReason::count);

const Command& command(fuzz::Input& in) {
    const auto groups = command_groups();
    const auto commands = groups[in.byte() % groups.size()].commands;
    return commands[in.byte() % commands.size()];
}

std::string_view word(fuzz::Input& in) {
    static constexpr std::string_view others[] = {
        "web",     "db",       "1",  "0x1000",     "--json",       "--once",       "-f",      "--last=3",
        "--diff",  "\x11\x1b", "--", "\"",         "\\",           "  ",           "100",     "0x11000v",
        "restart", "50 100",   "F1", "--keyboard", "ctrl-alt-Del", "'^a\\x41\\n'", "shift-a", "[vm.new]"};
    switch (in.byte() % 4) {
        case 0: return command(in).name;
        case 1: return vm_keys()[in.byte() % vm_keys().size()];
        case 2: {
            const std::string_view option = command(in).options[in.byte() % 3];
            return option.empty() ? "--json" : option;
        }
        default: return others[in.byte() % std::size(others)];
    }
}

// What a VM has to show, of which much is its guest's to say.
void furnish(FakeManagement::Vm& vm, fuzz::Input& in) {
    Noise noise(in.value<u16>());
    vm.vcpus.resize(1 + noise.byte() % 3);
    for (VcpuSummary& vcpu : vm.vcpus) {
        vcpu.state = static_cast<VcpuSummary::State>(noise.byte() % 7);
        if (noise.byte() % 2 != 0) vcpu.core = noise.byte() % 4;
        vcpu.affinity.add(noise.byte() % 4);
        vcpu.exits = noise.next();
        vcpu.cpu_nanoseconds = noise.next();
    }
    for (u64& gpr : vm.registers.gprs) gpr = noise.next();
    vm.registers.cr0 = noise.next();
    vm.registers.efer = noise.next();
    vm.registers.rflags = noise.next();
    vm.memory.resize(noise.byte() * 5U);
    for (u8& byte : vm.memory) byte = noise.byte();
    vm.screen.columns = noise.byte() % (ScreenText::max_columns + 1);
    vm.screen.rows = noise.byte() % (ScreenText::max_rows + 1);
    vm.screen.cursor_visible = noise.byte() % 2 != 0;
    for (auto& row : vm.screen.characters) {
        for (char& character : row) character = static_cast<char>(noise.byte());
    }
    for (unsigned i = noise.byte() % 20; i-- != 0;)
        vm.exits.of(static_cast<ExitReason>(noise.byte() % exit_reason_count)).count += noise.next() >> 30;
    for (u64& count : vm.exits.host_caused) count = noise.byte();
    (void)vm.memory_summary.ranges.push_back({HostPhysical(noise.next()), noise.next() >> 20});
    if (noise.byte() % 2 != 0)
        vm.gang = GangSummary{.starts = noise.byte(), .mean_nanoseconds = noise.next()};
    if (noise.byte() % 2 != 0) {
        vm.fault.emplace();
        vm.fault->what.append("a \x11 \x1b[2J");
        vm.fault->rip = noise.next();
    }
    vm.keyboard_room = noise.byte();
}

void furnish(FakeManagement& management, fuzz::Input& in) {
    management.modules = {{"kernel", std::string(300, 'k')}, {"web", "[vm.web]\nkernel = \"kernel\"\n"}};
    management.problems = {"line 1, column 2: \x11"};
    management.plan = "the plan\n";
    for (unsigned i = 0; i < 3; ++i) {
        CoreSummary core;
        core.number = core.vcpus = i;
        core.apic_id = 2 * i;
        core.online = i != 2;
        core.dedicated = i == 1;
        if (!core.online) core.reason.append("no answer");
        management.cores.push_back(core);
    }
    Noise noise(in.byte());
    management.tables.leaks = noise.byte() % 3;
    management.tables_unreadable = noise.byte() % 8 == 0;
    management.unreachable_core = noise.byte() % 8 == 0;
    if (noise.byte() % 4 == 0) management.reached_by = 1;
    for (unsigned i = noise.byte() % 8; i-- != 0;) {
        management.records.emplace_back().reason = static_cast<ExitReason>(noise.byte() % exit_reason_count);
    }
    for (auto& vm : management.vms) furnish(vm, in);
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    FakeManagement management;
    management.add(1, "web");
    management.add(2, "db", VmState::crashed).reason = "vCPU 0: \x1b[2J\x11";
    management.log_line(1, LogLevel::warning, "a line");
    furnish(management, in);
    Screen screen;
    Session session(screen, management, 0x1D);
    session.start();
    while (!in.empty()) {
        const u64 before = screen.bytes;
        screen.watching = !session.attached();
        switch (in.byte() % 16) {
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
            case 11:
                for (const char c : command(in).example) session.input(static_cast<u8>(c));
                break;
            case 12:
                for (unsigned polls = in.byte(); polls-- != 0;) {
                    screen.watching = !session.attached();
                    if (!session.poll()) break;
                }
                break;
            case 13: management.clock += in.byte() * u64{40'000'000}; break;
            case 14:
                for (const char c : "--json"sv) session.input(static_cast<u8>(c));
                break;
            default: session.input(0x1D);
        }
        // What one key, one line of a log or one piece of guest output can make of work.
        MUST(screen.bytes - before < 200'000);
    }
}
