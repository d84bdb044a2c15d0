#include "vmm/record/recorder.hpp"

#include <cstring>

#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

// Of the RAM, which may have a hole; see platform::ram_pieces().
u64 ram_bytes(const GuestMemory& memory) {
    u64 end = 0;
    for (const GuestMemory::Range& range : memory.ranges()) end = range.start.raw() + range.length;
    return end <= platform::mmio_hole ? end : end - (platform::mmio_hole_end - platform::mmio_hole);
}

}  // namespace

void Recorder::note_cpuid(u32 leaf, u32 subleaf, const CpuidResult& result) {
    if (powered_on_) return;
    for (const RecordedCpuid& known : cpuids_) {
        if (known.leaf == leaf && known.subleaf == subleaf) return;
    }
    if (!cpuids_.push_back({.leaf = leaf, .subleaf = subleaf, .result = result})) stop();
}

void Recorder::begin_power_on() {
    if (powered_on_) stop();
    listening_ = powered_on_ = true;
}

void Recorder::end_preparation(const GuestMemory& memory, ApicAssist assist, u64 tsc_hz) {
    listening_ = false;
    prepared_ = true;
    memory_ = &memory;
    header_.memory = ram_bytes(memory);
    header_.assist = assist;
    header_.tsc_hz = tsc_hz;
    writer_.number(record_magic);
    for (const u64 value : {header_.memory, u64{static_cast<u8>(assist)}, tsc_hz, header_.wall_clock}) {
        writer_.number(value);
    }
    writer_.number(cpuids_.size());
    for (const RecordedCpuid& entry : cpuids_) {
        for (const u32 value : {entry.leaf, entry.subleaf, entry.result.eax, entry.result.ebx,
                                entry.result.ecx, entry.result.edx}) {
            writer_.number(value);
        }
    }
    write_times();
    commit();
}

void Recorder::time_read(u64 tsc) {
    if (!listening_ || stopped_) return;
    if (time_count_ == max_times) return stop();
    tables_.times[time_count_++] = tsc;
}

void Recorder::memory_touched(const GuestMemory& memory, GuestPhysical address, u64 length) {
    if (!listening_ || !recording() || &memory != memory_ || length == 0) return;
    const u64 last = (address.raw() + (length - 1)) / Granule::size;
    for (u64 number = address.raw() / Granule::size; number <= last; ++number) {
        bool seen = false;
        for (usize i = 0; i < granule_count_ && !seen; ++i) seen = tables_.granules[i].number == number;
        if (seen) continue;
        if (granule_count_ == max_granules) return stop();
        Granule& granule = tables_.granules[granule_count_];
        granule.number = number;
        // Where no RAM is there is nothing to remember. What is read here is not the VMM's reading.
        listening_ = false;
        if (memory.read(GuestPhysical(number * Granule::size), granule.bytes)) ++granule_count_;
        listening_ = true;
    }
}

// --- Frames ---

void Recorder::begin_frame(FrameKind kind) {
    listening_ = true;
    time_count_ = granule_count_ = 0;
    writer_.byte(static_cast<u8>(kind));
}

void Recorder::typed(u8 character) {
    if (!recording()) return;
    writer_.byte(static_cast<u8>(FrameKind::typed));
    writer_.byte(character);
    commit();
}

void Recorder::begin_turn(u64 deadline, const VcpuBackend& backend, const u8* apic) {
    if (!recording()) return;
    begin_frame(FrameKind::turn);
    writer_.number(deadline + 1);  // ~0, the commonest, is short
    write_input(backend, apic);
}

void Recorder::begin_exit(const Exit& exit, const VcpuBackend& backend, const u8* apic) {
    if (exits_ == limit_) stop();
    if (!recording()) return;
    begin_frame(FrameKind::exit);
    Exit copy = exit;
    ExitCodec codec(writer_);
    codec.exchange(copy);
    write_input(backend, apic);
    ++exits_;
}

void Recorder::end_frame_by_entry(u64 deadline, const VcpuBackend& backend, const u8* apic) {
    if (!recording()) return;
    write_output(backend, apic);
    writer_.byte(frame_entered);
    writer_.number(deadline + 1);
    // Entering delivers it.
    tables_.now.set_event(std::nullopt);
    last_ = tables_.now;
    commit();
}

void Recorder::end_frame_by_turn(u8 result, const VcpuBackend& backend, const u8* apic) {
    if (!recording()) return;
    write_output(backend, apic);
    writer_.byte(static_cast<u8>(1 + result));
    last_ = tables_.now;
    commit();
}

void Recorder::write_input(const VcpuBackend& backend, const u8* apic) {
    tables_.now.capture(backend, apic);
    write_changes(last_, tables_.now);
    input_ = tables_.now;
}

void Recorder::write_output(const VcpuBackend& backend, const u8* apic) {
    listening_ = false;
    write_times();
    const std::span<Granule> touched(tables_.granules, granule_count_);
    const auto is_news = [this](const Granule& granule) {
        const Granule& known = place_of(granule.number);
        return known.number != granule.number + 1 ||
               std::memcmp(known.bytes, granule.bytes, Granule::size) != 0;
    };
    u64 news = 0;
    for (const Granule& granule : touched) news += is_news(granule) ? 1 : 0;
    writer_.number(news);
    for (const Granule& granule : touched) {
        if (is_news(granule)) write_granule(granule);
    }

    tables_.now.capture(backend, apic);
    write_changes(input_, tables_.now);
    u64 changed = 0;
    for (Granule& granule : touched) {
        Granule& known = place_of(granule.number);
        known.number = granule.number + 1;
        (void)memory_->read(GuestPhysical(granule.number * Granule::size), known.bytes);
        // Marked by a number that no granule has.
        if (std::memcmp(known.bytes, granule.bytes, Granule::size) == 0) {
            granule.number = ~u64{0};
            continue;
        }
        std::memcpy(granule.bytes, known.bytes, Granule::size);
        ++changed;
    }
    writer_.number(changed);
    for (const Granule& granule : touched) {
        if (granule.number != ~u64{0}) write_granule(granule);
    }
}

void Recorder::write_changes(const RecordedState& before, const RecordedState& after) {
    for (unsigned i = 0; i < RecordedState::count; ++i) {
        if (before.values[i] == after.values[i]) continue;
        writer_.byte(static_cast<u8>(i));
        writer_.number(fold_sign(after.values[i] - before.values[i]));
    }
    writer_.byte(0xFF);
}

void Recorder::write_times() {
    writer_.number(time_count_);
    for (usize i = 0; i < time_count_; ++i) {
        writer_.number(fold_sign(tables_.times[i] - last_time_));
        last_time_ = tables_.times[i];
    }
    time_count_ = 0;
}

void Recorder::write_granule(const Granule& granule) {
    writer_.number(fold_sign(granule.number - last_granule_));
    last_granule_ = granule.number;
    writer_.bytes(granule.bytes);
}

// A frame that did not fit as a whole is not in the record, nor is anything behind it.
void Recorder::commit() {
    if (writer_.full()) {
        writer_.cut(committed_);
        stop();
    }
    committed_ = writer_.size();
}

}  // namespace bulkhead
