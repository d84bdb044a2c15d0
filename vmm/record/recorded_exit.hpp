// An exit in a record. One function writes and reads, so that the two cannot differ.
#pragma once

#include "vmm/exit.hpp"
#include "vmm/record/recorded_state.hpp"
#include "vmm/record/stream.hpp"

namespace bulkhead {

// Stream: RecordWriter, which writes `exit`; or RecordReader, which fills it in, with nothing that a backend
// could not have said.
template <class Stream>
class ExitCodec {
  public:
    explicit ExitCodec(Stream& stream) : stream_(stream) {}

    void exchange(Exit& exit) {
        at_most(exit.reason, static_cast<u64>(ExitReason::count) - 1);
        at_most(exit.instruction_length, 15);
        value(exit.raw_code);
        event(exit.interrupted);
        if constexpr (Stream::reads) begin(exit);
        switch (exit.reason) {
            case ExitReason::port_io: return port(exit.port);
            case ExitReason::msr_read:
            case ExitReason::msr_write: {
                u32 index = exit.msr.index.raw();
                value(index);
                exit.msr.index = MsrIndex(index);
                return;
            }
            case ExitReason::control_register: return control(exit.control);
            case ExitReason::debug_register: return debug(exit.debug);
            case ExitReason::nested_page_fault: return nested(exit.nested);
            case ExitReason::apic_access:
            case ExitReason::apic_write:
                at_most(exit.apic.offset, page_size - 1);
                flags(exit.apic.write, exit.apic.fetch, exit.apic.during_event);
                return;
            case ExitReason::exception: {
                std::optional<Event> raised = exit.exception.event;
                event(raised);
                exit.exception.event = raised.value_or(make_invalid_opcode());
                value(exit.exception.debug_status);
                return;
            }
            case ExitReason::task_switch:
                value(exit.task_switch.selector);
                at_most(exit.task_switch.source, 3);
                return;
            case ExitReason::virtual_eoi:
            case ExitReason::sipi: {
                u8 vector = exit.vector.raw();
                value(vector);
                exit.vector = Vector(vector);
                return;
            }
            default: return;
        }
    }

    void event(std::optional<Event>& event) {
        u64 packed = pack_event(event);
        value(packed);
        u64 error_code = event ? event->error_code.value_or(0) : 0;
        u64 address = event ? event->fault_address.value_or(0) : 0;
        if (has_bit(packed, 16)) value(error_code);
        if (has_bit(packed, 17)) value(address);
        if constexpr (Stream::reads) {
            event = unpack_event(packed, error_code, address);
            if (packed != 0 && !event) stream_.refuse();
        }
    }

  private:
    // The member of the union that the reason has.
    static void begin(Exit& exit) {
        switch (exit.reason) {
            case ExitReason::msr_read:
            case ExitReason::msr_write: exit.msr = {}; return;
            case ExitReason::apic_access:
            case ExitReason::apic_write: exit.apic = {}; return;
            case ExitReason::exception: exit.exception = {}; return;
            case ExitReason::task_switch: exit.task_switch = {}; return;
            case ExitReason::port_io: exit.port = {}; return;
            case ExitReason::control_register: exit.control = {}; return;
            case ExitReason::debug_register: exit.debug = {}; return;
            case ExitReason::nested_page_fault: exit.nested = {}; return;
            default: exit.vector = Vector(0);
        }
    }

    template <class T>
    void value(T& value) {
        if constexpr (Stream::reads) {
            value = static_cast<T>(stream_.number());
        } else {
            stream_.number(static_cast<u64>(value));
        }
    }
    template <class T>
    void at_most(T& value, u64 most) {
        if constexpr (Stream::reads) {
            const u64 number = stream_.number();
            if (number > most) stream_.refuse();
            value = static_cast<T>(number > most ? 0 : number);
        } else {
            stream_.number(static_cast<u64>(value));
        }
    }
    template <class... Flags>
    void flags(Flags&... flags) {
        u64 bits = 0;
        unsigned at = 0;
        ((bits |= u64{flags} << at++), ...);
        value(bits);
        at = 0;
        ((flags = has_bit(bits, at++)), ...);
    }
    void guest_physical(GuestPhysical& address) {
        u64 raw = address.raw();
        value(raw);
        address = GuestPhysical(raw);
    }

    void port(PortAccess& access) {
        u16 port = access.port.raw();
        value(port);
        access.port = Port(port);
        at_most(access.size, 4);
        if (access.size == 0 || access.size == 3) access.size = 1;
        flags(access.in, access.string, access.repeat, access.string_details);
        if (!access.string) return;
        at_most(access.address_size, 8);
        at_most(access.segment, static_cast<u64>(SegmentName::gs));
    }
    void control(ControlRegisterAccess& access) {
        at_most(access.number, 15);
        at_most(access.kind, 3);
        at_most(access.general_register, 15);
        value(access.lmsw_value);
        flags(access.operands_known);
    }
    void debug(DebugRegisterAccess& access) {
        at_most(access.number, 7);
        at_most(access.general_register, 15);
        flags(access.read, access.operands_known);
    }
    void nested(NestedPageFault& fault) {
        guest_physical(fault.address);
        flags(fault.read, fault.write, fault.fetch, fault.present, fault.during_walk, fault.linear_known);
        if (fault.linear_known) {
            u64 linear = fault.linear.raw();
            value(linear);
            fault.linear = GuestVirtual(linear);
        }
        at_most(fault.byte_count, sizeof fault.bytes);
        for (unsigned i = 0; i < fault.byte_count; ++i) value(fault.bytes[i]);
    }

    Stream& stream_;
};

}  // namespace bulkhead
