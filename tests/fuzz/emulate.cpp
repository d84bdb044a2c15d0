// Fetching, decoding and executing one instruction on a processor in any state: whatever it is, its accesses
// are bounded and stay within a page, and what ended early changed nothing.
#include "vmm/decode/emulator.hpp"

#include "tests/fuzz/guest_machine.hpp"

using namespace bulkhead;

namespace {

bool same(const GeneralRegisters& a, const GeneralRegisters& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

bool is_string(const Instruction& i) {
    return i.map == OpcodeMap::one_byte && i.encoding == Encoding::legacy &&
           ((i.opcode >= 0xA4 && i.opcode <= 0xA7) || (i.opcode >= 0xAA && i.opcode <= 0xAF) ||
            (i.opcode >= 0x6C && i.opcode <= 0x6F));
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    fuzz::GuestMachine machine(in);
    machine.set_state(in);
    const u8 kind = in.byte();
    u64& rip = machine.registers[static_cast<unsigned>(Register::rip)];
    rip = (kind & 1) != 0 ? in.number() : 0x4000 + in.below(0x1000);
    EmulatorOptions options;
    options.known = {.physical = GuestPhysical(in.value<u32>() & 0x1FFFF),
                     .linear = GuestVirtual(in.number()),
                     .valid = (kind & 2) != 0,
                     .linear_known = (kind & 4) != 0,
                     .writable = (kind & 8) != 0};
    options.iteration_limit = (kind & 0x10) != 0 ? 1 + in.byte() : 1024;
    const ExecutionMode mode = execution_mode(machine);
    const Bytes code = in.take(15);

    Instruction instruction;
    if ((kind & 0x20) != 0) {
        // From memory, which then is what translation makes of RIP.
        machine.poke(rip & 0x7FFF, code);
        FetchedInstruction fetched;
        if (!fetch_instruction(machine, mode, fetched)) {
            MUST(fetched.outcome.kind != Outcome::Kind::done);
            MUST(fetched.byte_count <= 15);
            return;
        }
        instruction = fetched.instruction;
    } else if (decode(code, mode.code, instruction) != DecodeStatus::ok) {
        return;
    }

    const GeneralRegisters before = machine.general;
    const u64 flags = machine.read(Register::rflags), at = rip;
    const u64 accesses = machine.accesses;
    const Outcome outcome = emulate(machine, mode, instruction, options);

    // A walk has five levels and at most eight attempts; two operands of two pages each, and the flags.
    const u64 elements = is_string(instruction) ? options.iteration_limit : 1;
    MUST(machine.accesses - accesses <= 400 + elements * (machine.steady() ? 24 : 400));
    MUST(machine.ports <= elements);
    if (!is_string(instruction)) MUST(machine.device_reads <= 3 && machine.device_writes <= 2);
    switch (outcome.kind) {
        case Outcome::Kind::done: break;
        case Outcome::Kind::exception:
            MUST(outcome.event.type == Event::Type::hardware_exception && outcome.event.vector.raw() < 32);
            [[fallthrough]];
        case Outcome::Kind::interrupted: MUST(rip == at); break;
        case Outcome::Kind::unsupported: MUST(rip == at || !machine.steady()); break;
    }
    if (outcome.kind == Outcome::Kind::done || is_string(instruction)) return;
    MUST(rip == at);
    if (!machine.steady()) return;
    MUST(same(machine.general, before) && machine.read(Register::rflags) == flags);
    MUST(machine.writes == 0 && machine.device_writes == 0 && machine.ports == 0);
}
