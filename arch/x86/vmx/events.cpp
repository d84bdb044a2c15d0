#include "arch/x86/vmx/events.hpp"

#include "arch/x86/vmx/control_bits.hpp"

namespace bulkhead::vmx {
namespace {

constexpr u32 type_code(Event::Type type) {
    switch (type) {
        case Event::Type::external_interrupt: return interruption::type_external;
        case Event::Type::nmi: return interruption::type_nmi;
        case Event::Type::hardware_exception: return interruption::type_hardware_exception;
        case Event::Type::software_interrupt: return interruption::type_software_interrupt;
        case Event::Type::privileged_software_exception:
            return interruption::type_privileged_software_exception;
        case Event::Type::software_exception: return interruption::type_software_exception;
    }
    return interruption::type_hardware_exception;
}

constexpr bool has_length(u32 type) {
    return type == interruption::type_software_interrupt ||
           type == interruption::type_privileged_software_exception ||
           type == interruption::type_software_exception;
}

}  // namespace

EntryEvent encode_event(const Event& event, bool protected_mode, bool zero_length) {
    const u32 type = type_code(event.type);
    const u8 vector = type == interruption::type_nmi ? u8{2} : event.vector.raw();
    EntryEvent result;
    result.information = interruption::valid | type << 8 | vector;
    if (type == interruption::type_hardware_exception && protected_mode && pushes_error_code(vector)) {
        result.information |= interruption::deliver_error_code;
        result.error_code = event.error_code.value_or(0) & 0xFFFF;
    }
    if (has_length(type)) {
        const u32 length = event.instruction_length > 15 ? 15 : event.instruction_length;
        // Zero pushes the address of the instruction itself. Where the processor refuses that, one byte past
        // it is all it offers.
        result.instruction_length = length == 0 && !zero_length ? 1 : length;
    }
    return result;
}

std::optional<Event> decode_event(u32 information, u32 error_code, u32 instruction_length) {
    const u32 type = interruption::type_of(information);
    Event event{.vector = Vector(interruption::vector_of(information))};
    switch (type) {
        case interruption::type_external: event.type = Event::Type::external_interrupt; break;
        case interruption::type_nmi: event.type = Event::Type::nmi; break;
        case interruption::type_hardware_exception: event.type = Event::Type::hardware_exception; break;
        case interruption::type_software_interrupt: event.type = Event::Type::software_interrupt; break;
        case interruption::type_privileged_software_exception:
            event.type = Event::Type::privileged_software_exception;
            break;
        case interruption::type_software_exception: event.type = Event::Type::software_exception; break;
        default: return std::nullopt;
    }
    if ((information & interruption::deliver_error_code) != 0) event.error_code = error_code;
    if (has_length(type)) event.instruction_length = static_cast<u8>(instruction_length & 0xF);
    return event;
}

}  // namespace bulkhead::vmx
