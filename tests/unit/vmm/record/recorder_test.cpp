#include "vmm/record/recorder.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <random>

#include "tests/replay/replayer.hpp"
#include "tests/unit/vmm/vm_bench.hpp"
#include "vmm/record/recording.hpp"

namespace bulkhead {
namespace {

// A VM over fake hardware, recorded as the image does it. The calls that the image's linker diverts are made
// by hand.
struct RecordedVm {
    static constexpr u64 memory = 4 * mib, ram_start = 16 * mib;

    explicit RecordedVm(usize record_bytes = mib, ApicAssist assist = ApicAssist::none)
        : storage(record_bytes), recorder(storage, *tables), fake_factory(fake, assist) {
        fake.now = 5'000'000;
        const UnitRun run{HostPhysical(ram_start), memory / large_page_size};
        const VmBlueprint blueprint{.memory = memory, .ram = {&run, 1}, .window = physical.window()};
        REQUIRE(arena.add({.base = physical.at(HostPhysical(mib)),
                           .physical = HostPhysical(mib),
                           .length = (arena_bytes_for(blueprint) + page_size) / page_size * page_size}));
        auto built = build_virtual_machine(arena, blueprint, machine, factory, surroundings);
        REQUIRE(built);
        vm = *built;
        recorder.begin_power_on();
        fake.now = 5'100'000;
        const std::vector<u8> kernel = test::make_elf();
        const auto start = vm->power_on({.kernel = {kernel.data(), kernel.size()}});
        REQUIRE(start);
        recorder.suspend();
        backend().load();
        recorder.begin_reset();
        vm->vcpus()[0]->reset(&*start);
        recorder.suspend();
        recorder.end_preparation(vm->memory(), assist, machine.tsc_hz());
    }

    [[nodiscard]] RecordingBackend& backend() const { return *factory.backend(); }
    [[nodiscard]] FakeBackend& cpu() const { return *fake_factory.backends[0]; }
    // The guest's turn: the exits that cpu() has been given, and a host interrupt.
    void turn() {
        const u64 deadline = fake.now + 1'000'000'000;
        backend().begin_turn(deadline);
        const auto result = vm->vcpus()[0]->run(deadline);
        backend().end_turn(static_cast<u8>(result));
    }
    void exit(ExitReason reason, u8 length) {
        Exit made(reason);
        made.instruction_length = length;
        cpu().then(made);
    }
    void port(u16 port, bool in, u8 size = 1) {
        Exit made(ExitReason::port_io);
        made.instruction_length = 1;
        made.port = {.port = Port(port), .size = size, .in = in};
        cpu().then(made);
    }
    [[nodiscard]] Bytes record() const { return {storage.data(), recorder.size()}; }
    [[nodiscard]] replay::Report replayed() const { return replay_of(record()); }
    [[nodiscard]] static replay::Report replay_of(Bytes record) {
        const FakeMemory there(memory + replay::memory_beside);
        return replay::replay(record, there, {.most_memory = memory});
    }

    // A bit of everything that exits without touching memory.
    void some_life(bool halts = true) {
        exit(ExitReason::cpuid, 2);
        for (const u16 each : {0x21, 0x40, 0x40, 0x71, 0x3F8, 0x64}) port(each, true);
        port(0x43, false);
        turn();
        cpu().gprs.rcx = 0x10;
        Exit msr(ExitReason::msr_read);
        msr.instruction_length = 2;
        msr.msr = {.index = MsrIndex(0x10)};
        cpu().then(msr);
        msr.msr = {.index = MsrIndex(0x12345)};  // #GP
        cpu().then(msr);
        exit(ExitReason::undefined_instruction, 3);
        port(0x608, true, 4);
        fake.now += 1'000'000;
        turn();
        recorder.typed('x');
        (void)vm->serial_input('x');
        port(0x3FD, true);
        if (halts) exit(ExitReason::hlt, 1);
        turn();
    }

    std::vector<u8> storage;
    std::unique_ptr<Recorder::Tables> tables = std::make_unique<Recorder::Tables>();
    Recorder recorder;
    FakeMachine fake;
    FakeFactory fake_factory;
    RecordingMachine machine{fake, recorder};
    RecordingFactory factory{fake_factory, recorder};
    RecordingSurroundings surroundings;
    FakeMemory physical{ram_start + memory};
    Arena arena;
    VirtualMachine* vm = nullptr;
};

TEST_CASE("what was recorded comes out again when it is replayed") {
    const auto assist = GENERATE(ApicAssist::none, ApicAssist::full);
    RecordedVm recorded(mib, assist);
    recorded.some_life();
    CHECK(recorded.recorder.recording());
    CHECK(recorded.recorder.exits() >= 14);
    const replay::Report report = recorded.replayed();
    CHECK(report.problem == "");
    CHECK(report.exits == recorded.recorder.exits());
    CHECK(report.turns == 3);
    CHECK(report.compared > report.exits * 100);
}

TEST_CASE("a difference is noticed, and named") {
    RecordedVm recorded;
    recorded.exit(ExitReason::cpuid, 2);
    recorded.turn();
    REQUIRE(recorded.replayed().problem == "");
    // The last frames are the host's interrupt and, before it, CPUID, whose results are changes of RAX to RDX
    // and RIP.
    std::vector<u8> record(recorded.record().begin(), recorded.record().end());
    unsigned noticed = 0, refused = 0;
    for (usize i = record.size() - 120; i < record.size(); ++i) {
        record[i] ^= 1;
        const std::string problem = RecordedVm::replay_of(record).problem;
        if (problem.find("RAX is") != std::string::npos || problem.find("RIP is") != std::string::npos)
            ++noticed;
        if (!problem.empty()) ++refused;
        record[i] ^= 1;
    }
    CHECK(noticed > 0);
    CHECK(refused > 20);
}

TEST_CASE("a record that is full ends with a whole frame") {
    RecordedVm whole;
    for (int i = 0; i < 20; ++i) whole.some_life(false);
    const usize size = whole.recorder.size();
    REQUIRE(size > 4000);
    for (usize room = size - 300; room < size; room += 37) {
        RecordedVm recorded(room);
        for (int i = 0; i < 20; ++i) recorded.some_life(false);
        CHECK_FALSE(recorded.recorder.recording());
        CHECK(recorded.recorder.size() <= room);
        const replay::Report report = recorded.replayed();
        CHECK(report.problem == "");
        CHECK(report.exits > 100);
    }
}

TEST_CASE("a record may be cut anywhere, and changed anywhere, without harm") {
    RecordedVm recorded;
    recorded.some_life();
    std::vector<u8> record(recorded.record().begin(), recorded.record().end());
    std::mt19937 random(1);
    for (int i = 0; i < 150; ++i) {
        const usize length = random() % record.size();
        const std::vector<u8> part(record.begin(), record.begin() + static_cast<long>(length));
        CHECK(RecordedVm::replay_of(part).exits <= recorded.recorder.exits());
        std::vector<u8> changed = record;
        for (int n = 0; n < 4; ++n) changed[random() % changed.size()] = static_cast<u8>(random());
        CHECK(RecordedVm::replay_of(changed).frames <= changed.size());
    }
    CHECK(RecordedVm::replay_of({}).problem != "");
}

TEST_CASE("memory that the VMM looked at is in the record once, until it changes") {
    RecordedVm recorded;
    const auto size_of_turn = [&](u64 address, bool write) {
        const usize before = recorded.recorder.size();
        recorded.backend().begin_turn(0);
        recorded.recorder.memory_touched(recorded.vm->memory(), GuestPhysical(address), 4);
        const u8 bytes[4] = {1, 2, 3, static_cast<u8>(before)};
        if (write) REQUIRE(recorded.vm->memory().write(GuestPhysical(address), bytes));
        recorded.backend().end_turn(0);
        return recorded.recorder.size() - before;
    };
    (void)size_of_turn(0xF000'0000, false);  // the first has all registers; no RAM is there
    const usize without = size_of_turn(0xF000'0000, false);
    CHECK(size_of_turn(0x5000, false) >= without + Granule::size);
    CHECK(size_of_turn(0x5000, false) == without);
    CHECK(size_of_turn(0x5000, true) >= without + Granule::size);  // the result
    CHECK(size_of_turn(0x5000, false) == without);
    const u8 guest_writes[2] = {9, 9};
    REQUIRE(recorded.vm->memory().write(GuestPhysical(0x5008), guest_writes));
    CHECK(size_of_turn(0x5000, false) >= without + Granule::size);
    CHECK(size_of_turn(0x500E, false) >= without + Granule::size);  // half of it in the next piece
    CHECK(size_of_turn(0x500E, false) == without);
}

TEST_CASE("numbers come out as they went in") {
    std::vector<u8> storage(4096);
    RecordWriter writer(storage);
    std::mt19937_64 random(7);
    std::vector<u64> numbers = {0, 1, 0x7F, 0x80, ~u64{0}, bit(63)};
    for (int i = 0; i < 300; ++i) numbers.push_back(random() >> (random() % 64));
    for (const u64 number : numbers) writer.number(number);
    REQUIRE_FALSE(writer.full());
    RecordReader reader({storage.data(), writer.size()});
    for (const u64 number : numbers) {
        CHECK(reader.number() == number);
        CHECK(unfold_sign(fold_sign(number)) == number);
    }
    CHECK(reader.at_end());
    CHECK(reader.ok());
    (void)reader.byte();
    CHECK_FALSE(reader.ok());
    CHECK(fold_sign(~u64{0}) == 1);
}

TEST_CASE("an exit of every kind comes out as it went in") {
    std::mt19937 random(3);
    for (unsigned reason = 0; reason < static_cast<unsigned>(ExitReason::count); ++reason) {
        for (int n = 0; n < 20; ++n) {
            // Random bytes are a record too: what is read of them is written, and read again.
            u8 noise[200];
            for (u8& byte : noise) byte = static_cast<u8>(random() % 16);
            noise[0] = static_cast<u8>(reason);
            RecordReader first(noise);
            Exit exit;
            ExitCodec from(first);
            from.exchange(exit);
            if (!first.ok()) continue;
            u8 storage[400];
            RecordWriter writer(storage);
            ExitCodec to(writer);
            Exit copy = exit;
            to.exchange(copy);
            RecordReader second({storage, writer.size()});
            Exit again;
            ExitCodec back(second);
            back.exchange(again);
            REQUIRE(second.ok());
            REQUIRE(second.at_end());
            REQUIRE(again.reason == exit.reason);
            REQUIRE(again.instruction_length == exit.instruction_length);
            REQUIRE(again.interrupted == exit.interrupted);
            u8 last[400];
            RecordWriter last_writer(last);
            ExitCodec once_more(last_writer);
            once_more.exchange(again);
            REQUIRE(last_writer.size() == writer.size());
            REQUIRE(std::memcmp(last, storage, writer.size()) == 0);
        }
    }
}

}  // namespace
}  // namespace bulkhead
