#include "vmm/record/recorded_state.hpp"

#include <cstring>

namespace bulkhead {

u64 pack_event(const std::optional<Event>& event) {
    if (!event) return 0;
    return 1 | u64{static_cast<u8>(event->type)} << 1 | u64{event->vector.raw()} << 8 |
           u64{event->error_code.has_value()} << 16 | u64{event->fault_address.has_value()} << 17 |
           u64{event->instruction_length} << 24;
}

std::optional<Event> unpack_event(u64 packed, u64 error_code, u64 fault_address) {
    const auto type = static_cast<Event::Type>(extract(packed, 7, 1));
    if ((packed & 1) == 0 || type > Event::Type::software_exception) return std::nullopt;
    Event event{.type = type,
                .vector = Vector(static_cast<u8>(packed >> 8)),
                .instruction_length = static_cast<u8>(packed >> 24 & 15)};
    if (has_bit(packed, 16)) event.error_code = static_cast<u32>(error_code);
    if (has_bit(packed, 17)) event.fault_address = fault_address;
    return event;
}

void RecordedState::capture(const VcpuBackend& backend, const u8* apic) {
    for (unsigned i = 0; i < 16; ++i) values[general + i] = backend.gprs[i];
    for (unsigned i = 0; i < static_cast<unsigned>(Register::count); ++i)
        values[registers + i] = backend.read(static_cast<Register>(i));
    for (unsigned i = 0; i < 8; ++i) {
        const auto name = static_cast<SegmentName>(i);
        set_segment(name, backend.segment(name));
    }
    const DescriptorTable gdt = backend.gdtr(), idt = backend.idtr();
    values[gdtr] = gdt.base;
    values[gdtr + 1] = gdt.limit;
    values[idtr] = idt.base;
    values[idtr + 1] = idt.limit;
    set_interruptibility(backend.interruptibility());
    values[cr8] = backend.cr8();
    values[xcr0] = backend.xcr0();
    for (unsigned i = 0; i < 4; ++i) values[debug + i] = backend.debug_register(i);
    values[debug + 4] = backend.debug_register(6);
    for (unsigned i = 0; i < apic_registers; ++i) {
        u32 value = 0;
        std::memcpy(&value, apic + 16 * i, sizeof value);
        values[apic_page + i] = value;
    }
}

Segment RecordedState::segment(SegmentName which) const {
    const u64* from = values + segments + segment_size * static_cast<u8>(which);
    return {.selector = static_cast<u16>(from[0]),
            .base = from[1],
            .limit = static_cast<u32>(from[2]),
            .access = static_cast<u16>(from[3]),
            .unusable = has_bit(from[3], 16)};
}

void RecordedState::set_segment(SegmentName which, const Segment& value) {
    u64* to = values + segments + segment_size * static_cast<u8>(which);
    to[0] = value.selector;
    to[1] = value.base;
    to[2] = value.limit;
    to[3] = value.access | u64{value.unusable} << 16;
}

Interruptibility RecordedState::get_interruptibility() const {
    const u64 bits = values[interruptibility];
    return {
        .sti_shadow = has_bit(bits, 0), .mov_ss_shadow = has_bit(bits, 1), .nmi_blocked = has_bit(bits, 2)};
}

void RecordedState::set_interruptibility(Interruptibility value) {
    values[interruptibility] =
        u64{value.sti_shadow} | u64{value.mov_ss_shadow} << 1 | u64{value.nmi_blocked} << 2;
}

std::optional<Event> RecordedState::event() const {
    return unpack_event(values[injected], values[injected + 1], values[injected + 2]);
}

void RecordedState::set_event(const std::optional<Event>& event) {
    values[injected] = pack_event(event);
    values[injected + 1] = event ? event->error_code.value_or(0) : 0;
    values[injected + 2] = event ? event->fault_address.value_or(0) : 0;
}

void RecordedState::print_name(Sink& sink, unsigned index) const {
    static constexpr std::string_view general_names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP",
                                                         "RSI", "RDI", "R8",  "R9",  "R10", "R11",
                                                         "R12", "R13", "R14", "R15"};
    static constexpr std::string_view register_names[] = {"RIP",
                                                          "RFLAGS",
                                                          "CR0",
                                                          "CR2",
                                                          "CR3",
                                                          "CR4",
                                                          "DR7",
                                                          "EFER",
                                                          "FS base",
                                                          "GS base",
                                                          "kernel GS base",
                                                          "STAR",
                                                          "LSTAR",
                                                          "CSTAR",
                                                          "SFMASK",
                                                          "SYSENTER CS",
                                                          "SYSENTER ESP",
                                                          "SYSENTER EIP",
                                                          "PAT",
                                                          "DEBUGCTL",
                                                          "TSC_AUX"};
    static_assert(std::size(register_names) == static_cast<unsigned>(Register::count));
    static constexpr std::string_view told_names[] = {"injected event", "its error code",   "its address",
                                                      "windows",        "TPR threshold",    "TSC offset",
                                                      "APIC mode",      "virtual interrupt"};
    if (index < registers) return sink.write(general_names[index]);
    if (index < segments) return sink.write(register_names[index - registers]);
    if (index < gdtr) {
        static constexpr std::string_view names[] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"};
        static constexpr std::string_view parts[] = {"selector", "base", "limit", "access"};
        return print(sink, "{} {}", names[(index - segments) / segment_size],
                     parts[(index - segments) % segment_size]);
    }
    if (index < interruptibility) return sink.write(index < idtr ? "GDTR" : "IDTR");
    if (index < debug)
        return sink.write(index == interruptibility ? "interruptibility" : index == cr8 ? "CR8" : "XCR0");
    if (index < apic_page) return print(sink, "DR{}", index - debug == 4 ? 6 : index - debug);
    if (index < told) return print(sink, "APIC register {:#x}", 16 * (index - apic_page));
    sink.write(index < eoi_exits ? told_names[index - told] : "EOI exits");
}

}  // namespace bulkhead
