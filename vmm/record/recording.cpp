#include "vmm/record/recording.hpp"

namespace bulkhead {

CpuidResult RecordingMachine::cpuid(u32 leaf, u32 subleaf) const {
    const CpuidResult result = machine_.cpuid(leaf, subleaf);
    recorder_.note_cpuid(leaf, subleaf, result);
    return result;
}

u64 RecordingMachine::tsc() const {
    const u64 now = machine_.tsc();
    recorder_.time_read(now);
    return now;
}

u64 RecordingMachine::wall_clock() const {
    const u64 seconds = machine_.wall_clock();
    recorder_.note_wall_clock(seconds);
    return seconds;
}

Exit RecordingBackend::run(u64 deadline) {
    recorder_.end_frame_by_entry(deadline, *this, apic_);
    backend_.gprs = gprs;
    const Exit exit = backend_.run(deadline);
    gprs = backend_.gprs;
    entered = backend_.entered;
    left = backend_.left;
    recorder_.begin_exit(exit, *this, apic_);
    recorder_.time_read(left);
    return exit;
}

void RecordingBackend::inject(const Event& event) {
    backend_.inject(event);
    recorder_.told().set_event(event);
}

void RecordingBackend::cancel_injection() {
    backend_.cancel_injection();
    recorder_.told().set_event(std::nullopt);
}

void RecordingBackend::set_interrupt_window(bool wanted) {
    backend_.set_interrupt_window(wanted);
    u64& windows = told(RecordedState::windows);
    windows = wanted ? windows | 1 : windows & ~u64{1};
}

void RecordingBackend::set_nmi_window(bool wanted) {
    backend_.set_nmi_window(wanted);
    u64& windows = told(RecordedState::windows);
    windows = wanted ? windows | 2 : windows & ~u64{2};
}

void RecordingBackend::set_tsc_offset(u64 offset) {
    backend_.set_tsc_offset(offset);
    told(RecordedState::tsc_offset) = offset;
}

void RecordingBackend::set_apic_mode(ApicMode mode) {
    backend_.set_apic_mode(mode);
    told(RecordedState::apic_mode) = static_cast<u8>(mode);
}

void RecordingBackend::set_virtual_interrupt(u8 requesting, u8 servicing) {
    backend_.set_virtual_interrupt(requesting, servicing);
    told(RecordedState::virtual_interrupt) = requesting | u64{servicing} << 8;
}

void RecordingBackend::set_eoi_exit(Vector vector, bool exits) {
    backend_.set_eoi_exit(vector, exits);
    u64& word = told(RecordedState::eoi_exits + vector.raw() / 64U);
    const u64 mask = bit(vector.raw() % 64U);
    word = exits ? word | mask : word & ~mask;
}

void RecordingBackend::set_tpr_threshold(u8 priority_class) {
    backend_.set_tpr_threshold(priority_class);
    told(RecordedState::tpr_threshold) = priority_class;
}

void RecordingBackend::reset() {
    backend_.reset();
    gprs = backend_.gprs;
    recorder_.told() = {};
}

Result<VcpuBackend*> RecordingFactory::create(Arena& arena, const BackendParameters& parameters) {
    auto backend = factory_.create(arena, parameters);
    if (!backend || parameters.vm_number != 0 || parameters.vcpu_number != 0) return backend;
    auto recording = arena.create<RecordingBackend>(**backend, recorder_, parameters.apic_page.base);
    if (!recording) return std::unexpected(recording.error());
    // A VM that is made anew is another one.
    if (backend_ != nullptr) recorder_.stop();
    backend_ = *recording;
    return *recording;
}

}  // namespace bulkhead
