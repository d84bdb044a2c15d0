#include "vmm/decode/guest_access.hpp"

#include "arch/x86/regs/control.hpp"

namespace bulkhead {

ExecutionMode execution_mode(const EmulationContext& context) {
    const Segment cs = context.segment(SegmentName::cs);
    const bool long_mode = (context.read(Register::efer) & efer::lma) != 0;
    ExecutionMode mode;
    mode.cpl = static_cast<u8>(context.cpl());
    if (long_mode && cs.long_mode()) return mode;
    mode.code = cs.default_big() ? CodeSize::bits32 : CodeSize::bits16;
    const bool protection = (context.read(Register::cr0) & cr0::pe) != 0;
    mode.error_codes = protection;
    mode.protected_mode = protection && (context.read(Register::rflags) & rflags::vm) == 0;
    return mode;
}

PagingState paging_state(const EmulationContext& context) {
    PagingState state{
        .cr0 = context.read(Register::cr0),
        .cr3 = context.read(Register::cr3),
        .cr4 = context.read(Register::cr4),
        .efer = context.read(Register::efer),
        .ac = (context.read(Register::rflags) & rflags::ac) != 0,
        .physical_bits = static_cast<u8>(context.physical_address_bits()),
        .gigabyte_pages = context.gigabyte_pages(),
    };
    const bool pae = (state.cr4 & cr4::pae) != 0 && (state.efer & efer::lma) == 0;
    if (pae && (state.cr0 & cr0::pg) != 0) state.pdptes = context.pdptes();
    return state;
}

GuestAccess::GuestAccess(EmulationContext& context, const ExecutionMode& mode, const KnownTranslation& known)
    : context_(context), mode_(mode), known_(&known), known_physical_(known.valid && !known.linear_known) {
    if (!known.valid || !known.linear_known) return;
    const Window window{known.linear.raw() / page_size, known.physical.align_down(page_size)};
    windows_[static_cast<unsigned>(AccessKind::read)] = window;
    if (known.writable) windows_[static_cast<unsigned>(AccessKind::write)] = window;
}

bool GuestAccess::raise(const Event& event) {
    outcome_.kind = Outcome::Kind::exception;
    outcome_.event = event;
    return false;
}

bool GuestAccess::raise(Vector vector, std::optional<u32> error_code) {
    return raise(make_exception(vector, mode_.error_codes ? error_code : std::nullopt));
}

bool GuestAccess::stop(Outcome::Kind kind) {
    outcome_.kind = kind;
    return false;
}

bool GuestAccess::linear(SegmentName name, u64 offset, unsigned size, AccessKind kind, u64& address) {
    if (is_flat(name)) return linear_in(Segment{}, name, offset, size, kind, address);
    return linear_in(context_.segment(name), name, offset, size, kind, address);
}

// Alignment is checked in ring 3 alone, so the registers are only asked for there.
bool GuestAccess::misaligned(u64 address, unsigned size) {
    if (mode_.cpl != 3 || (address & (size - 1)) == 0) return false;
    return (context_.read(Register::cr0) & cr0::am) != 0 &&
           (context_.read(Register::rflags) & rflags::ac) != 0;
}

bool GuestAccess::linear_in(const Segment& segment, SegmentName name, u64 offset, unsigned size,
                            AccessKind kind, u64& address) {
    const Vector fault = name == SegmentName::ss ? exception::stack_fault : exception::general_protection;
    if (mode_.code == CodeSize::bits64) {
        address = is_flat(name) ? offset : segment.base + offset;
        const u64 last = address + size - 1;
        if (!is_canonical(address, false) || !is_canonical(last, false)) [[unlikely]] {
            const bool five_levels = (context_.read(Register::cr4) & cr4::la57) != 0;
            if (!five_levels || !is_canonical(address, true) || !is_canonical(last, true))
                return raise(fault, 0);
        }
    } else {
        if (mode_.protected_mode) {
            if (segment.unusable || !segment.present() || !segment.is_code_or_data()) return raise(fault, 0);
            const bool code = has_bit(segment.access, 3);
            const bool readable_or_writable = has_bit(segment.access, 1);
            // Data is always readable, code never writable.
            const bool allowed =
                kind == AccessKind::read ? !code || readable_or_writable : !code && readable_or_writable;
            if (!allowed) return raise(fault, 0);
        }
        const bool expand_down = (segment.type() & 0b1100) == 0b0100;
        const u64 last = offset + size - 1;
        if (expand_down) {
            const u64 top = segment.default_big() ? 0xFFFFFFFF : 0xFFFF;
            if (offset <= segment.limit || last > top) return raise(fault, 0);
        } else if (segment.limit != 0xFFFFFFFF && last > segment.limit) {
            // A segment of 4 GiB has no end to cross: the address wraps, as on hardware.
            return raise(fault, 0);
        }
        address = (segment.base + offset) & 0xFFFFFFFF;
    }
    if (misaligned(address, size)) return raise(exception::alignment_check, 0);
    return true;
}

bool GuestAccess::walk(u64 address, AccessKind kind, GuestPhysical& to) {
    const PageAccess access{.write = kind == AccessKind::write, .user = mode_.cpl == 3};
    const WalkResult result = walk_pages(context_, paging_state(context_), GuestVirtual(address), access);
    switch (result.status) {
        case WalkResult::Status::fault: return raise(result.event(GuestVirtual(address)));
        case WalkResult::Status::contended: return stop(Outcome::Kind::interrupted);
        case WalkResult::Status::ok: break;
    }
    to = result.address;
    windows_[static_cast<unsigned>(kind)] = {address / page_size, to.align_down(page_size)};
    return true;
}

bool GuestAccess::translate_across(u64 address, unsigned size, AccessKind kind, Translated& to) {
    to.size = static_cast<u8>(size);
    to.first_size = static_cast<u8>(page_size - (address & (page_size - 1)));
    u64 next = address + to.first_size;
    if (mode_.code != CodeSize::bits64) next &= 0xFFFFFFFF;
    return translate_page(address, kind, false, to.first) && translate_page(next, kind, false, to.second);
}

namespace {

// The pieces in which an odd number of bytes (1..7) is accessed: the largest power of two first.
unsigned piece(unsigned remaining) {
    return remaining >= 8 ? 8 : remaining >= 4 ? 4 : remaining >= 2 ? 2 : 1;
}

}  // namespace

bool GuestAccess::load(const Translated& from, u64& value) {
    if (from.first_size == from.size) [[likely]] {
        value = 0;
        if (!context_.read_physical(from.first, from.size, value)) return stop(Outcome::Kind::unsupported);
        value &= all_ones(from.size);
        return true;
    }
    u64 result = 0;
    for (unsigned at = 0; at < from.size;) {
        const bool in_first = at < from.first_size;
        const unsigned size = piece((in_first ? from.first_size : from.size) - at);
        const GuestPhysical address = in_first ? from.first + at : from.second + (at - from.first_size);
        u64 part = 0;
        if (!context_.read_physical(address, size, part)) return stop(Outcome::Kind::unsupported);
        result |= (part & all_ones(size)) << (8 * at);
        at += size;
    }
    value = result;
    return true;
}

bool GuestAccess::store(const Translated& to, u64 value) {
    if (to.first_size == to.size) [[likely]] {
        if (context_.write_physical(to.first, to.size, value & all_ones(to.size))) return true;
        return stop(Outcome::Kind::unsupported);
    }
    for (unsigned at = 0; at < to.size;) {
        const bool in_first = at < to.first_size;
        const unsigned size = piece((in_first ? to.first_size : to.size) - at);
        const GuestPhysical address = in_first ? to.first + at : to.second + (at - to.first_size);
        if (!context_.write_physical(address, size, (value >> (8 * at)) & all_ones(size)))
            return stop(Outcome::Kind::unsupported);
        at += size;
    }
    return true;
}

namespace {

// The linear address of the code byte at `offset` in CS, and how many bytes may follow it from there within
// the page and the segment (0: none, #GP).
struct CodeAddress {
    u64 linear = 0;
    u64 available = 0;
};

CodeAddress code_address(EmulationContext& context, const ExecutionMode& mode, u64 offset) {
    CodeAddress code;
    if (mode.code == CodeSize::bits64) {
        const bool five_levels =
            !is_canonical(offset, false) && (context.read(Register::cr4) & cr4::la57) != 0;
        if (!is_canonical(offset, five_levels)) return code;
        code.linear = offset;
        code.available = page_size;
    } else {
        const Segment cs = context.segment(SegmentName::cs);
        offset &= 0xFFFFFFFF;
        if (offset > cs.limit) return code;
        code.linear = (cs.base + offset) & 0xFFFFFFFF;
        code.available = cs.limit - offset + 1;
    }
    const u64 in_page = page_size - code.linear % page_size;
    if (in_page < code.available) code.available = in_page;
    return code;
}

}  // namespace

bool fetch_instruction(EmulationContext& context, const ExecutionMode& mode, FetchedInstruction& fetched) {
    const auto end = [&fetched](DecodeStatus status, Outcome::Kind kind, const Event& event) {
        fetched.status = status;
        fetched.outcome = {kind, event};
        return false;
    };
    const auto general_protection = [&](DecodeStatus status) {
        return end(status, Outcome::Kind::exception,
                   make_exception(exception::general_protection,
                                  mode.error_codes ? std::optional<u32>(0) : std::nullopt));
    };
    const u64 rip = context.read(Register::rip);
    fetched.byte_count = 0;
    for (;;) {
        const CodeAddress code = code_address(context, mode, rip + fetched.byte_count);
        if (code.available == 0) return general_protection(DecodeStatus::more_bytes);
        const PageAccess access{.user = mode.cpl == 3, .fetch = true};
        const WalkResult walk = walk_pages(context, paging_state(context), GuestVirtual(code.linear), access);
        if (walk.status == WalkResult::Status::fault) {
            return end(DecodeStatus::more_bytes, Outcome::Kind::exception,
                       walk.event(GuestVirtual(code.linear)));
        }
        if (walk.status == WalkResult::Status::contended)
            return end(DecodeStatus::more_bytes, Outcome::Kind::interrupted, {});
        const u64 room = Instruction::max_length - fetched.byte_count;
        const u64 count = code.available < room ? code.available : room;
        if (!context.fetch_physical(walk.address, MutableBytes(fetched.bytes + fetched.byte_count, count)))
            return end(DecodeStatus::more_bytes, Outcome::Kind::unsupported, {});
        fetched.byte_count = static_cast<u8>(fetched.byte_count + count);

        fetched.status = decode(Bytes(fetched.bytes, fetched.byte_count), mode.code, fetched.instruction);
        switch (fetched.status) {
            case DecodeStatus::ok: return true;
            case DecodeStatus::invalid:
                return end(fetched.status, Outcome::Kind::exception, make_invalid_opcode());
            case DecodeStatus::too_long: return general_protection(fetched.status);
            case DecodeStatus::more_bytes: break;  // byte_count < 15, and it grows each time round
        }
    }
}

}  // namespace bulkhead
