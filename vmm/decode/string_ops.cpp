// MOVS, CMPS, STOS, LODS, SCAS, INS and OUTS. A repetition is left after each element as if the instruction
// were about to start with the registers as they are then; so it can fault, stop and resume anywhere.
#include "vmm/decode/emulator_core.hpp"

namespace bulkhead {

namespace {

constexpr unsigned rax = 0, rcx = 1, rsi = 6, rdi = 7;

// Bytes that string port instructions move at a time.
constexpr u64 port_chunk = 64;
// Elements between two looks at whether the virtual processor is wanted elsewhere; a power of two.
constexpr u64 attention_interval = 16;

enum class Kind : u8 { ins, outs, movs, cmps, stos, lods, scas };

[[nodiscard]] Kind kind_of(u8 opcode) {
    switch (opcode & 0xFE) {
        case 0x6C: return Kind::ins;
        case 0x6E: return Kind::outs;
        case 0xA4: return Kind::movs;
        case 0xA6: return Kind::cmps;
        case 0xAA: return Kind::stos;
        case 0xAC: return Kind::lods;
        default: return Kind::scas;
    }
}

}  // namespace

struct Emulator::StringState {
    Kind kind = Kind::movs;
    bool backwards = false;
    u8 size = 1;
    u64 mask = 0;  // of the address size
    u64 si = 0;    // cut to the address size
    u64 di = 0;
    u64 flags = 0;  // as changed by CMPS and SCAS
    Segment source{};
    Segment destination{};

    [[nodiscard]] bool uses_source() const {
        return kind != Kind::ins && kind != Kind::stos && kind != Kind::scas;
    }
    [[nodiscard]] bool uses_destination() const { return kind != Kind::outs && kind != Kind::lods; }
    [[nodiscard]] bool compares() const { return kind == Kind::cmps || kind == Kind::scas; }
    [[nodiscard]] bool is_port() const { return kind == Kind::ins || kind == Kind::outs; }
    void advance(u64 bytes) {
        const u64 step = backwards ? u64{0} - bytes : bytes;
        if (uses_source()) si = (si + step) & mask;
        if (uses_destination()) di = (di + step) & mask;
    }
};

bool Emulator::string_address(const StringState& state, bool destination, u64 bytes, AccessKind kind,
                              u64& address) {
    const SegmentName name = destination ? SegmentName::es : i_.segment;
    return access_.linear_in(destination ? state.destination : state.source, name,
                             destination ? state.di : state.si, static_cast<unsigned>(bytes), kind, address);
}

// One element. Both operands are translated before either is touched.
bool Emulator::string_element(StringState& state) {
    const unsigned size = state.size;
    Translated source;
    Translated destination;
    u64 address = 0;
    if (state.uses_source() && (!string_address(state, false, size, AccessKind::read, address) ||
                                !access_.translate(address, size, AccessKind::read, false, source)))
        return false;
    const AccessKind kind = state.compares() ? AccessKind::read : AccessKind::write;
    if (state.uses_destination() && (!string_address(state, true, size, kind, address) ||
                                     !access_.translate(address, size, kind, false, destination)))
        return false;

    u64 value = 0;
    u64 other = 0;
    const Port port(static_cast<u16>(gprs_.rdx));
    switch (state.kind) {
        case Kind::movs:
            if (!access_.load(source, value) || !access_.store(destination, value)) return false;
            break;
        case Kind::stos:
            if (!access_.store(destination, gprs_.rax)) return false;
            break;
        case Kind::lods:
            if (!access_.load(source, value)) return false;
            set_register(rax, size, value);
            break;
        case Kind::cmps:
            if (!access_.load(source, value) || !access_.load(destination, other)) return false;
            state.flags = alu::execute(alu::Operation::cmp, value, other, size, state.flags).flags;
            break;
        case Kind::scas:
            if (!access_.load(destination, other)) return false;
            value = gprs_.rax & all_ones(size);
            state.flags = alu::execute(alu::Operation::cmp, value, other, size, state.flags).flags;
            break;
        case Kind::ins:
            if (!access_.store(destination, context_.port_read(port, size))) return false;
            break;
        case Kind::outs:
            if (!access_.load(source, value)) return false;
            context_.port_write(port, size, static_cast<u32>(value));
            break;
    }
    state.advance(size);
    return true;
}

// Moves as many elements as fit one page, the chunk and the budget between a port and RAM. `done`: how many;
// 0 where that is not possible, and a single element has to do.
bool Emulator::port_string(StringState& state, u64 budget, u64& done) {
    done = 0;
    const bool in = state.kind == Kind::ins;
    const AccessKind kind = in ? AccessKind::write : AccessKind::read;
    const u64 size = state.size;
    const u64 offset = in ? state.di : state.si;
    u64 count = port_chunk / size < budget ? port_chunk / size : budget;
    if (state.backwards || count < 2) return true;
    // The chunk may neither wrap at the address size nor leave its page or segment: else elements go one by
    // one.
    if (count * size - 1 > state.mask - offset) return true;
    u64 address = 0;
    if (!string_address(state, in, size, kind, address)) return false;
    const u64 in_page = (page_size - address % page_size) / size;
    if (in_page < count) count = in_page;
    if (count < 2) return true;
    if (access_.mode().code != CodeSize::bits64) {
        const Segment& segment = in ? state.destination : state.source;
        const bool expand_down = (segment.type() & 0b1100) == 0b0100;
        if (expand_down || offset + count * size - 1 > segment.limit) return true;
    }
    Translated where;
    if (!access_.translate(address, static_cast<unsigned>(size), kind, false, where)) return false;

    u8 buffer[port_chunk];
    const usize bytes = static_cast<usize>(count * size);
    const Port port(static_cast<u16>(gprs_.rdx));
    if (in) {
        // What a port yields must not be lost: RAM is tried first, with the bytes that are there already.
        if (!context_.read_ram(where.first, MutableBytes(buffer, bytes))) return true;
        context_.port_read_string(port, state.size, MutableBytes(buffer, bytes));
        if (!context_.write_ram(where.first, Bytes(buffer, bytes))) return unsupported();
    } else {
        if (!context_.read_ram(where.first, MutableBytes(buffer, bytes))) return true;
        context_.port_write_string(port, state.size, Bytes(buffer, bytes));
    }
    state.advance(bytes);
    done = count;
    return true;
}

bool Emulator::string() {
    const u64 start_flags = flags();
    const unsigned address_size = i_.address_size;
    const bool repeat = i_.repeats();
    StringState state;
    state.kind = kind_of(i_.opcode);
    state.backwards = (start_flags & rflags::df) != 0;
    state.size = state.is_port() && i_.operand_size > 4 ? u8{4} : i_.operand_size;
    state.mask = all_ones(address_size);
    state.si = gprs_.rsi & state.mask;
    state.di = gprs_.rdi & state.mask;
    state.flags = start_flags;

    u64 count = repeat ? gprs_.rcx & state.mask : 1;
    if (count == 0) return true;
    if (state.uses_source() && !access_.is_flat(i_.segment)) state.source = context_.segment(i_.segment);
    if (state.uses_destination() && !access_.is_flat(SegmentName::es))
        state.destination = context_.segment(SegmentName::es);

    // Single-stepped, a repetition traps after each element (Intel SDM Vol. 3B, 18.3.1.4, June 2023 edition).
    const bool stepped = repeat && (start_flags & rflags::tf) != 0;
    u64 budget = options_.iteration_limit != 0 && !stepped ? options_.iteration_limit : 1;
    bool going = true;
    bool finished = false;
    while (going && !finished) {
        u64 done = 0;
        if (state.is_port() && repeat) going = port_string(state, count < budget ? count : budget, done);
        if (going && done == 0) {
            going = string_element(state);
            done = going ? 1 : 0;
        }
        count -= done;
        budget -= done;
        if (!going) break;
        finished = count == 0;
        if (state.compares() && repeat) {
            // REPE goes on while equal, REPNE while not.
            const bool equal = (state.flags & rflags::zf) != 0;
            finished = finished || equal != i_.repeat;
        }
        if (finished) break;
        const bool look = done > 1 || budget % attention_interval == 0;
        if (budget == 0 || (look && context_.attention_pending()))
            going = access_.stop(stepped ? Outcome::Kind::stepped : Outcome::Kind::interrupted);
    }

    // The completed part shows, however it ended.
    const bool any = finished || count != (repeat ? gprs_.rcx & state.mask : 1);
    if (any) {
        if (state.uses_source()) set_register(rsi, address_size, state.si);
        if (state.uses_destination()) set_register(rdi, address_size, state.di);
        if (repeat) set_register(rcx, address_size, count);
        if (state.compares()) set_flags(state.flags);
        // "Nothing changed" is no longer true once elements are done; the next attempt will report it.
        if (access_.outcome().kind == Outcome::Kind::unsupported)
            going = access_.stop(Outcome::Kind::interrupted);
    }
    return going;
}

}  // namespace bulkhead
