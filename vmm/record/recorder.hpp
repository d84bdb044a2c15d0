// Records what a virtual processor's hardware and its clock tell the VMM, and what the VMM makes of it, so
// that a host program can do the same once more and compare (tests/replay). One VM with one processor, on one
// core, from power-on until the room is used up.
//
// A record is a header and frames. A frame is what happens between two runs of the guest: it begins with an
// exit, or with a turn (Vcpu::run()), and ends with the next entry, or with the turn. In it stand
//   what the hardware holds that it did not hold at the end of the last frame,
//   the time-stamps that were read, in order,
//   the guest's memory that was looked at, in pieces of 16 bytes, unless the record has it like that already,
//   what the VMM has changed: the hardware's state, events to inject, memory,
//   the deadline of the entry, or how the turn ended.
// Numbers are as in stream.hpp, mostly differences from the last of their kind.
#pragma once

#include "kernel/base/fixed_vector.hpp"
#include "vmm/backend_factory.hpp"
#include "vmm/physical_machine.hpp"
#include "vmm/record/recorded_exit.hpp"
#include "vmm/record/recorded_state.hpp"
#include "vmm/record/stream.hpp"

namespace bulkhead {

// "BHREC", and the format's version.
constexpr u64 record_magic = 0x01'0043'4552'4842;

enum class FrameKind : u8 {
    turn,   // Vcpu::run() was called; its deadline follows
    exit,   // the exit follows
    typed,  // a character for the first serial port follows, and nothing else
};
// How a frame ends: `entered`, with the deadline; or 1 + Vcpu::RunResult.
constexpr u8 frame_entered = 0;

// What the header says besides CPUID.
struct RecordHeader {
    u64 memory = 0;  // bytes of RAM
    ApicAssist assist = ApicAssist::none;
    u64 tsc_hz = 0;
    u64 wall_clock = 0;
};

struct RecordedCpuid {
    u32 leaf = 0, subleaf = 0;
    CpuidResult result{};
};

// A piece of guest memory, at 16 * number.
struct Granule {
    static constexpr u64 size = 16;
    u64 number = 0;
    u8 bytes[size] = {};
};

class Recorder {
  public:
    static constexpr usize max_cpuids = 128;
    static constexpr usize max_times = 256;  // of a frame, as are
    static constexpr usize max_granules = 1024;
    static constexpr usize max_known_granules = 16384;

    // `storage`: for the record. `tables`: what the recorder remembers of it.
    struct Tables {
        Granule known[max_known_granules] =
            {};                               // as the record has them, with number + 1; each has one place
        Granule granules[max_granules] = {};  // of this frame, as they were
        u64 times[max_times] = {};
        RecordedState now{};
    };
    Recorder(MutableBytes storage, Tables& tables) : writer_(storage), tables_(tables) {}

    // --- Before the first frame ---
    void note_cpuid(u32 leaf, u32 subleaf, const CpuidResult& result);
    void note_wall_clock(u64 seconds) { header_.wall_clock = seconds; }
    // Power-on: from here on its readings of the clock are kept, until suspend(), and likewise those of the
    // processor's reset. A second power-on ends the record.
    void begin_power_on();
    void begin_reset() { listening_ = powered_on_ && !prepared_; }
    void suspend() { listening_ = false; }
    void end_preparation(const GuestMemory& memory, ApicAssist assist, u64 tsc_hz);

    // --- Frames ---
    void typed(u8 character);
    void begin_turn(u64 deadline, const VcpuBackend& backend, const u8* apic);
    void begin_exit(const Exit& exit, const VcpuBackend& backend, const u8* apic);
    void end_frame_by_entry(u64 deadline, const VcpuBackend& backend, const u8* apic);
    void end_frame_by_turn(u8 result, const VcpuBackend& backend, const u8* apic);

    void time_read(u64 tsc);
    // The VMM is about to look at, or to write, this memory.
    void memory_touched(const GuestMemory& memory, GuestPhysical address, u64 length);

    // What the backend was told and cannot be asked for.
    RecordedState& told() { return tables_.now; }

    [[nodiscard]] bool prepared() const { return prepared_; }
    [[nodiscard]] bool recording() const { return prepared_ && !stopped_; }
    void stop() { stopped_ = true; }
    // No more exits than these are recorded.
    void set_limit(u64 exits) { limit_ = exits; }
    [[nodiscard]] usize size() const { return committed_; }
    [[nodiscard]] u64 exits() const { return exits_; }

  private:
    void begin_frame(FrameKind kind);
    void write_input(const VcpuBackend& backend, const u8* apic);
    void write_output(const VcpuBackend& backend, const u8* apic);
    void write_changes(const RecordedState& before, const RecordedState& after);
    void write_times();
    void write_granule(const Granule& granule);
    void commit();
    [[nodiscard]] Granule& place_of(u64 number) const { return tables_.known[number % max_known_granules]; }

    RecordWriter writer_;
    Tables& tables_;
    RecordHeader header_{};
    FixedVector<RecordedCpuid, max_cpuids> cpuids_;
    RecordedState last_{};  // at the end of the last frame
    const GuestMemory* memory_ = nullptr;
    usize time_count_ = 0, granule_count_ = 0;
    u64 last_time_ = 0, last_granule_ = 0;
    usize committed_ = 0;  // whole frames
    u64 exits_ = 0, limit_ = ~u64{0};
    bool listening_ = false, prepared_ = false, stopped_ = false, powered_on_ = false;
    RecordedState input_{};  // as this frame began
};

}  // namespace bulkhead
