#include "tests/replay/replayer.hpp"

#include <cstring>
#include <memory>
#include <optional>

#include "arch/x86/regs/control.hpp"
#include "tests/unit/vmm/loader/images.hpp"
#include "vmm/vm_builder.hpp"

namespace bulkhead::replay {
namespace {

constexpr u64 arena_start = mib, ram_start = memory_beside;

struct Text final : Sink {
    std::string text;
    void write(std::string_view piece) override { text += piece; }
};

template <class... Arguments>
std::string say(FormatString<std::type_identity_t<Arguments>...> format, const Arguments&... arguments) {
    Text sink;
    print(sink, format, arguments...);
    return sink.text;
}

using Changes = std::vector<std::pair<u8, u64>>;

struct Frame {
    FrameKind kind{};
    u64 deadline = 0;
    u8 typed = 0;
    Exit exit;
    Changes input, output;
    std::vector<u64> times;
    std::vector<Granule> seen, changed;
    u8 end = frame_entered;
    u64 end_deadline = 0;
};

// Lists in a record are no longer than the recorder makes them.
class FrameReader {
  public:
    explicit FrameReader(Bytes record) : stream_(record) {}

    [[nodiscard]] bool ok() const { return stream_.ok(); }
    [[nodiscard]] usize position() const { return stream_.position(); }

    bool read_header(RecordHeader& header, std::vector<RecordedCpuid>& cpuids, std::vector<u64>& times) {
        if (stream_.number() != record_magic) stream_.refuse();
        header.memory = stream_.number();
        const u64 assist = stream_.number();
        if (assist > static_cast<u64>(ApicAssist::full)) stream_.refuse();
        header.assist = static_cast<ApicAssist>(assist % 3);
        header.tsc_hz = stream_.number();
        header.wall_clock = stream_.number();
        const u64 count = stream_.number();
        if (count > Recorder::max_cpuids) stream_.refuse();
        for (u64 i = 0; i < count && stream_.ok(); ++i) {
            u32 values[6];
            for (u32& value : values) value = static_cast<u32>(stream_.number());
            cpuids.push_back({.leaf = values[0],
                              .subleaf = values[1],
                              .result = {values[2], values[3], values[4], values[5]}});
        }
        read_times(times);
        return stream_.ok();
    }

    // False at the record's end, and where it is none.
    bool read(Frame& frame) {
        frame = {};
        if (stream_.at_end() || !stream_.ok()) return false;
        const u8 kind = stream_.byte();
        if (kind > static_cast<u8>(FrameKind::typed)) stream_.refuse();
        frame.kind = static_cast<FrameKind>(kind);
        if (frame.kind == FrameKind::typed) {
            frame.typed = stream_.byte();
            return stream_.ok();
        }
        if (frame.kind == FrameKind::turn) {
            frame.deadline = stream_.number() - 1;
        } else {
            ExitCodec codec(stream_);
            codec.exchange(frame.exit);
        }
        read_changes(frame.input);
        read_times(frame.times);
        read_granules(frame.seen);
        read_changes(frame.output);
        read_granules(frame.changed);
        frame.end = stream_.byte();
        if (frame.end > 3) stream_.refuse();
        if (frame.end == frame_entered) frame.end_deadline = stream_.number() - 1;
        return stream_.ok();
    }

  private:
    void read_changes(Changes& changes) {
        for (unsigned i = 0; i <= RecordedState::count; ++i) {
            const u8 index = stream_.byte();
            if (index == 0xFF || !stream_.ok()) return;
            if (index >= RecordedState::count) return stream_.refuse();
            changes.emplace_back(index, unfold_sign(stream_.number()));
        }
        stream_.refuse();
    }
    void read_times(std::vector<u64>& times) {
        const u64 count = stream_.number();
        if (count > Recorder::max_times) return stream_.refuse();
        for (u64 i = 0; i < count && stream_.ok(); ++i) {
            last_time_ += unfold_sign(stream_.number());
            times.push_back(last_time_);
        }
    }
    void read_granules(std::vector<Granule>& granules) {
        const u64 count = stream_.number();
        if (count > Recorder::max_granules) return stream_.refuse();
        for (u64 i = 0; i < count && stream_.ok(); ++i) {
            last_granule_ += unfold_sign(stream_.number());
            Granule granule{.number = last_granule_ & low_mask(60)};
            for (u8& byte : granule.bytes) byte = stream_.byte();
            granules.push_back(granule);
        }
    }

    RecordReader stream_;
    u64 last_time_ = 0, last_granule_ = 0;
};

// A machine whose time is the record's.
class Machine final : public PhysicalMachine {
  public:
    [[nodiscard]] CpuidResult cpuid(u32 leaf, u32 subleaf) const override {
        for (const RecordedCpuid& entry : cpuids) {
            if (entry.leaf == leaf && entry.subleaf == subleaf) return entry.result;
        }
        return {};
    }
    [[nodiscard]] u64 tsc() const override {
        if (!times.empty()) {
            now_ = times.front();
            times.pop_front();
        }
        return now_;
    }
    [[nodiscard]] u64 tsc_hz() const override { return header.tsc_hz; }
    [[nodiscard]] u64 wall_clock() const override { return header.wall_clock; }

    RecordHeader header{};
    std::vector<RecordedCpuid> cpuids;
    mutable std::deque<u64> times;

  private:
    mutable u64 now_ = 0;
};

// Who says what happens in the guest.
class Guest {
  public:
    [[nodiscard]] virtual Exit run(u64 deadline) = 0;

  protected:
    ~Guest() = default;
};

class Backend final : public VcpuBackend {
  public:
    Backend(Guest& guest, const BackendParameters& parameters, ApicAssist assist)
        : guest_(guest), apic_(parameters.apic_page.base), assist_(assist) {}

    RecordedState held{};
    [[nodiscard]] u8* apic() const { return apic_; }

    [[nodiscard]] Exit run(u64 deadline) override { return guest_.run(deadline); }
    // Everything as `state` has it.
    void become(const RecordedState& state) {
        held = state;
        for (unsigned i = 0; i < 16; ++i) gprs[i] = state.values[RecordedState::general + i];
        for (unsigned i = 0; i < RecordedState::apic_registers; ++i) {
            const auto value = static_cast<u32>(state.values[RecordedState::apic_page + i]);
            std::memcpy(apic_ + 16 * i, &value, sizeof value);
        }
    }

    [[nodiscard]] u64 read(Register which) const override { return held.values[index(which)]; }
    void write(Register which, u64 value) override {
        if (which == Register::cr0) value |= cr0::et;
        if (which == Register::dr7) value = (value & 0xFFFFFFFF) | 0x400;
        held.values[index(which)] = value;
        if (which != Register::cr0 && which != Register::efer) return;
        u64& extended = held.values[index(Register::efer)];
        const bool long_mode = (extended & efer::lme) != 0 && (read(Register::cr0) & cr0::pg) != 0;
        extended = (extended & ~efer::lma) | (long_mode ? efer::lma : 0);
    }
    [[nodiscard]] Segment segment(SegmentName which) const override { return held.segment(which); }
    void set_segment(SegmentName which, const Segment& value) override { held.set_segment(which, value); }
    [[nodiscard]] DescriptorTable gdtr() const override { return table(RecordedState::gdtr); }
    [[nodiscard]] DescriptorTable idtr() const override { return table(RecordedState::idtr); }
    void set_gdtr(const DescriptorTable& value) override { set_table(RecordedState::gdtr, value); }
    void set_idtr(const DescriptorTable& value) override { set_table(RecordedState::idtr, value); }
    [[nodiscard]] Interruptibility interruptibility() const override { return held.get_interruptibility(); }
    void set_interruptibility(Interruptibility value) override { held.set_interruptibility(value); }
    void inject(const Event& event) override {
        held.set_event(event);
        if (event.fault_address) write(Register::cr2, *event.fault_address);
    }
    [[nodiscard]] bool injection_pending() const override {
        return held.values[RecordedState::injected] != 0;
    }
    void cancel_injection() override { held.set_event(std::nullopt); }
    void set_interrupt_window(bool wanted) override { set_window(1, wanted); }
    void set_nmi_window(bool wanted) override { set_window(2, wanted); }
    void set_tsc_offset(u64 offset) override { held.values[RecordedState::tsc_offset] = offset; }
    [[nodiscard]] ApicAssist apic_assist() const override { return assist_; }
    void set_apic_mode(ApicMode mode) override {
        held.values[RecordedState::apic_mode] = static_cast<u8>(mode);
    }
    void set_virtual_interrupt(u8 requesting, u8 servicing) override {
        held.values[RecordedState::virtual_interrupt] = requesting | u64{servicing} << 8;
    }
    void set_eoi_exit(Vector vector, bool exits) override {
        u64& word = held.values[RecordedState::eoi_exits + vector.raw() / 64U];
        const u64 mask = bit(vector.raw() % 64U);
        word = exits ? word | mask : word & ~mask;
    }
    void set_tpr_threshold(u8 priority_class) override {
        held.values[RecordedState::tpr_threshold] = priority_class;
    }
    [[nodiscard]] u8 cr8() const override {
        return assist_ == ApicAssist::none ? static_cast<u8>(held.values[RecordedState::cr8] & 15)
                                           : apic_[0x80] >> 4;
    }
    void set_cr8(u8 value) override {
        held.values[RecordedState::cr8] = value;
        if (assist_ != ApicAssist::none) apic_[0x80] = static_cast<u8>((value & 15) << 4);
    }
    void flush_translations() override {}
    void explain(Sink& sink) const override { sink.write("as recorded"); }
    void load() override {}
    void save() override {}
    [[nodiscard]] u64 xcr0() const override { return held.values[RecordedState::xcr0]; }
    void set_xcr0(u64 value) override { held.values[RecordedState::xcr0] = value; }
    [[nodiscard]] u64 debug_register(unsigned which) const override {
        return held.values[debug_index(which)];
    }
    void set_debug_register(unsigned which, u64 value) override { held.values[debug_index(which)] = value; }
    void reset() override {
        gprs = {};
        held = {};
    }

  private:
    [[nodiscard]] static constexpr unsigned index(Register which) {
        return RecordedState::registers + static_cast<unsigned>(which);
    }
    [[nodiscard]] static constexpr unsigned debug_index(unsigned which) {
        return RecordedState::debug + (which == 6 ? 4 : which & 3);
    }
    [[nodiscard]] DescriptorTable table(unsigned at) const {
        return {.base = held.values[at], .limit = static_cast<u16>(held.values[at + 1])};
    }
    void set_table(unsigned at, const DescriptorTable& value) {
        held.values[at] = value.base;
        held.values[at + 1] = value.limit;
    }
    void set_window(u64 which, bool wanted) {
        u64& windows = held.values[RecordedState::windows];
        windows = wanted ? windows | which : windows & ~which;
    }

    Guest& guest_;
    u8* apic_;
    ApicAssist assist_;
};

class Factory final : public BackendFactory {
  public:
    Factory(Guest& guest, ApicAssist assist) : guest_(guest), assist_(assist) {}

    [[nodiscard]] std::string_view name() const override { return "replay"; }
    [[nodiscard]] const PagingFormat& nested_format() const override { return ept_paging; }
    [[nodiscard]] unsigned nested_max_level() const override { return 2; }
    [[nodiscard]] ApicAssist apic_assist() const override { return assist_; }
    [[nodiscard]] Result<> map_apic_access(NestedPageTable&, Arena&) override { return {}; }
    [[nodiscard]] Result<VcpuBackend*> create(Arena&, const BackendParameters& parameters) override {
        made = std::make_unique<Backend>(guest_, parameters, assist_);
        return made.get();
    }

    std::unique_ptr<Backend> made;

  private:
    Guest& guest_;
    ApicAssist assist_;
};

class World final : public Surroundings {
  public:
    void serial_output(u16, u8) override {}
    bool survives_machine_check(u16) override { return false; }
    void wake(u16, unsigned) override {}
};

class Replay final : private Guest {
  public:
    Replay(Bytes record, const FakeMemory& physical, const Options& options)
        : reader_(record), physical_(physical), options_(options) {}

    Report run() {
        if (build()) play();
        if (!reader_.ok() && report_.problem.empty()) {
            report_.problem = say("byte {}: this is no record, or it is cut off", reader_.position());
        }
        return std::move(report_);
    }

  private:
    bool build() {
        std::vector<u64> times;
        if (!reader_.read_header(machine_.header, machine_.cpuids, times)) return false;
        const u64 memory = machine_.header.memory;
        if (memory < min_guest_memory || memory > options_.most_memory || memory % large_page_size != 0) {
            report_.problem = say("the VM has {} bytes of memory, which cannot be had here", memory);
            return false;
        }
        factory_.emplace(static_cast<Guest&>(*this), machine_.header.assist);
        const UnitRun run{HostPhysical(ram_start), memory / large_page_size};
        const VmBlueprint blueprint{.memory = memory, .ram = {&run, 1}, .window = physical_.window()};
        const u64 arena_bytes = (arena_bytes_for(blueprint) + page_size - 1) & ~(page_size - 1);
        if (auto added = arena_.add({.base = physical_.at(HostPhysical(arena_start)),
                                     .physical = HostPhysical(arena_start),
                                     .length = arena_bytes});
            !added) {
            report_.problem = added.error().text.view();
            return false;
        }
        auto built = build_virtual_machine(arena_, blueprint, machine_, *factory_, world_);
        if (!built) {
            report_.problem = built.error().text.view();
            return false;
        }
        vm_ = *built;
        machine_.times.assign(times.begin(), times.end());
        // Any kernel: what it is in memory, and the processor's registers, come from the record.
        static const std::vector<u8> kernel =
            test::make_elf({.physical = 0x100000, .entry = 0xFFFFFFFF80200010, .pvh_entry = 0x100020});
        const auto start = vm_->power_on({.kernel = kernel});
        if (!start) {
            report_.problem = start.error().text.view();
            return false;
        }
        vcpu().reset(&*start);
        return true;
    }

    [[nodiscard]] Vcpu& vcpu() const { return *vm_->vcpus()[0]; }
    [[nodiscard]] Backend& backend() const { return *factory_->made; }

    void play() {
        while (report_.problem.empty() && !vm_->stopped() && next()) {
            switch (frame_.kind) {
                case FrameKind::typed: (void)vm_->serial_input(frame_.typed); break;
                case FrameKind::exit: differ("the guest runs without a turn"); break;
                case FrameKind::turn: {
                    ++report_.turns;
                    begin_frame();
                    const Vcpu::RunResult result = vcpu().run(frame_.deadline);
                    if (result == Vcpu::RunResult::blocked) (void)vcpu().wake_deadline();
                    if (over_) return;
                    end_frame();
                    if (frame_.end != 1 + static_cast<u8>(result)) {
                        differ(frame_.end == frame_entered
                                   ? say("the turn ends ({}) where the guest was entered",
                                         static_cast<u8>(result))
                                   : say("the turn ends with {}, not {}", static_cast<u8>(result),
                                         frame_.end - 1));
                    }
                    break;
                }
            }
        }
    }

    // The next frame, be it the one that was looked at already.
    bool next() {
        if (waiting_) {
            waiting_ = false;
            return true;
        }
        if (!reader_.read(frame_)) {
            over_ = true;
            return false;
        }
        ++report_.frames;
        return true;
    }

    // The hardware is as the record has it, and so is what the VMM is going to read.
    void begin_frame() {
        for (const auto& [which, difference] : frame_.input) recorded_.values[which] += difference;
        backend().become(recorded_);
        machine_.times.assign(frame_.times.begin(), frame_.times.end());
        for (const Granule& granule : frame_.seen) {
            (void)vm_->memory().write(GuestPhysical(granule.number * Granule::size), granule.bytes);
        }
    }

    // The VMM has done with it.
    void end_frame() {
        for (const auto& [which, difference] : frame_.output) recorded_.values[which] += difference;
        if (!options_.compare) return;
        RecordedState now = backend().held;
        now.capture(backend(), backend().apic());
        for (unsigned i = 0; i < RecordedState::count; ++i) {
            if (now.values[i] == recorded_.values[i]) continue;
            Text name;
            now.print_name(name, i);
            differ(say("{} is {:#x}, not {:#x}", std::string_view(name.text), now.values[i],
                       recorded_.values[i]));
        }
        for (const Granule& granule : frame_.changed) {
            u8 bytes[Granule::size];
            if (!vm_->memory().read(GuestPhysical(granule.number * Granule::size), bytes) ||
                std::memcmp(bytes, granule.bytes, sizeof bytes) != 0) {
                differ(say("memory at {:#x} is another", granule.number * Granule::size));
            }
        }
        report_.compared += RecordedState::count + frame_.changed.size();
    }

    // One entry: the end of a frame, and the begin of the next.
    Exit run(u64 deadline) override {
        Exit nothing(ExitReason::external_interrupt);
        if (over_ || waiting_) return nothing;
        end_frame();
        if (frame_.end != frame_entered) {
            differ("the guest is entered where the turn ended");
        } else if (frame_.end_deadline != deadline) {
            differ(say("the deadline is {:#x}, not {:#x}", deadline, frame_.end_deadline));
        }
        recorded_.set_event(std::nullopt);
        if (!report_.problem.empty() || !next()) {
            over_ = true;
            return nothing;
        }
        if (frame_.kind != FrameKind::exit) {
            differ("the guest is entered, and there is no exit");
            waiting_ = true;
            return nothing;
        }
        ++report_.exits;
        begin_frame();
        backend().entered = backend().left = machine_.tsc();
        return frame_.exit;
    }

    void differ(std::string_view how) {
        if (!options_.compare || report_.problem.size() > 400) return;
        if (report_.problem.empty()) {
            report_.problem = say("frame {}, {}: ", report_.frames,
                                  frame_.kind == FrameKind::exit ? name_of(frame_.exit.reason) : "a turn");
        } else {
            report_.problem += "; ";
        }
        report_.problem += how;
    }

    FrameReader reader_;
    const FakeMemory& physical_;
    Options options_;
    Report report_;
    Machine machine_;
    World world_;
    std::optional<Factory> factory_;
    Arena arena_;
    VirtualMachine* vm_ = nullptr;
    Frame frame_;
    RecordedState recorded_{};
    bool waiting_ = false;  // frame_ is yet to be played
    bool over_ = false;
};

}  // namespace

Report replay(Bytes record, const FakeMemory& physical, const Options& options) {
    return Replay(record, physical, options).run();
}

}  // namespace bulkhead::replay
