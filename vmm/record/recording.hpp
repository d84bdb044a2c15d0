// What stands between the VMM and the hardware while a record is made: the same interfaces, passing
// everything on.
#pragma once

#include "vmm/record/recorder.hpp"

namespace bulkhead {

class RecordingMachine final : public PhysicalMachine {
  public:
    RecordingMachine(const PhysicalMachine& machine, Recorder& recorder)
        : machine_(machine), recorder_(recorder) {}

    [[nodiscard]] CpuidResult cpuid(u32 leaf, u32 subleaf) const override;
    [[nodiscard]] u64 tsc() const override;
    [[nodiscard]] u64 tsc_hz() const override { return machine_.tsc_hz(); }
    [[nodiscard]] u64 wall_clock() const override;

  private:
    const PhysicalMachine& machine_;
    Recorder& recorder_;
};

class RecordingBackend final : public VcpuBackend {
  public:
    RecordingBackend(VcpuBackend& backend, Recorder& recorder, const u8* apic)
        : backend_(backend), recorder_(recorder), apic_(apic) {}

    [[nodiscard]] Exit run(u64 deadline) override;
    void begin_turn(u64 deadline) { recorder_.begin_turn(deadline, *this, apic_); }
    void end_turn(u8 result) { recorder_.end_frame_by_turn(result, *this, apic_); }

    [[nodiscard]] u64 read(Register which) const override { return backend_.read(which); }
    void write(Register which, u64 value) override { backend_.write(which, value); }
    [[nodiscard]] Segment segment(SegmentName which) const override { return backend_.segment(which); }
    void set_segment(SegmentName which, const Segment& value) override { backend_.set_segment(which, value); }
    [[nodiscard]] DescriptorTable gdtr() const override { return backend_.gdtr(); }
    [[nodiscard]] DescriptorTable idtr() const override { return backend_.idtr(); }
    void set_gdtr(const DescriptorTable& value) override { backend_.set_gdtr(value); }
    void set_idtr(const DescriptorTable& value) override { backend_.set_idtr(value); }
    [[nodiscard]] Interruptibility interruptibility() const override { return backend_.interruptibility(); }
    void set_interruptibility(Interruptibility value) override { backend_.set_interruptibility(value); }
    void inject(const Event& event) override;
    [[nodiscard]] bool injection_pending() const override { return backend_.injection_pending(); }
    void cancel_injection() override;
    void set_interrupt_window(bool wanted) override;
    void set_nmi_window(bool wanted) override;
    void set_tsc_offset(u64 offset) override;
    [[nodiscard]] ApicAssist apic_assist() const override { return backend_.apic_assist(); }
    void set_apic_mode(ApicMode mode) override;
    void set_virtual_interrupt(u8 requesting, u8 servicing) override;
    void set_eoi_exit(Vector vector, bool exits) override;
    void set_tpr_threshold(u8 priority_class) override;
    [[nodiscard]] u8 cr8() const override { return backend_.cr8(); }
    void set_cr8(u8 value) override { backend_.set_cr8(value); }
    void flush_translations() override { backend_.flush_translations(); }
    void reset() override;
    void explain(Sink& sink) const override { backend_.explain(sink); }
    void load() override { backend_.load(); }
    void save() override { backend_.save(); }
    [[nodiscard]] u64 xcr0() const override { return backend_.xcr0(); }
    void set_xcr0(u64 value) override { backend_.set_xcr0(value); }
    [[nodiscard]] u64 debug_register(unsigned index) const override { return backend_.debug_register(index); }
    void set_debug_register(unsigned index, u64 value) override { backend_.set_debug_register(index, value); }

  private:
    [[nodiscard]] u64& told(unsigned which) { return recorder_.told().values[which]; }

    VcpuBackend& backend_;
    Recorder& recorder_;
    const u8* apic_;  // the local APIC's page
};

// Makes what `factory` makes, and a recording backend around the first VM's processor.
class RecordingFactory final : public BackendFactory {
  public:
    RecordingFactory(BackendFactory& factory, Recorder& recorder) : factory_(factory), recorder_(recorder) {}

    [[nodiscard]] std::string_view name() const override { return factory_.name(); }
    [[nodiscard]] const PagingFormat& nested_format() const override { return factory_.nested_format(); }
    [[nodiscard]] unsigned nested_max_level() const override { return factory_.nested_max_level(); }
    [[nodiscard]] ApicAssist apic_assist() const override { return factory_.apic_assist(); }
    [[nodiscard]] Result<> map_apic_access(NestedPageTable& nested, Arena& arena) override {
        return factory_.map_apic_access(nested, arena);
    }
    [[nodiscard]] Result<VcpuBackend*> create(Arena& arena, const BackendParameters& parameters) override;

    // Of the VM that is recorded; none before it is made.
    [[nodiscard]] RecordingBackend* backend() const { return backend_; }

  private:
    BackendFactory& factory_;
    Recorder& recorder_;
    RecordingBackend* backend_ = nullptr;
};

}  // namespace bulkhead
