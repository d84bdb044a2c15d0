// Fetching, decoding and executing one instruction on a processor in any state: whatever it is, its accesses
// are bounded and stay within a page, and what ended early changed nothing.
#include "vmm/decode/emulator.hpp"

#include <vector>

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

// An instruction: any 15 bytes, or mostly prefixes, an opcode of the first two maps, and operands.
std::vector<u8> make_code(fuzz::Input& in) {
    const u8 shape = in.byte();
    std::vector<u8> code;
    if (shape < 0xE0) {
        if ((shape & 1) != 0) code.push_back(0x66);
        if ((shape & 0x12) == 0x12) code.push_back(0x67);
        if ((shape & 4) != 0) code.push_back((shape & 0x20) != 0 ? 0xF2 : 0xF3);
        if ((shape & 0x18) == 0x18) code.push_back(0xF0);
        if ((shape & 0x50) == 0x50) code.push_back(static_cast<u8>(0x40 | (in.byte() & 0xF)));
        if ((shape & 0x80) != 0) code.push_back(0x0F);
    }
    for (unsigned i = 0; i < 10; ++i) code.push_back(in.byte());
    if (code.size() > 15) code.resize(15);
    return code;
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    const std::vector<u8> code = make_code(in);
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
    // Page tables may lie in the device, too.
    if (!is_string(instruction) && (machine.read(Register::cr0) & cr0::pg) == 0)
        MUST(machine.device_reads <= 4 && machine.device_writes <= 4);
    switch (outcome.kind) {
        case Outcome::Kind::done: break;
        case Outcome::Kind::exception:
            MUST(outcome.event.type == Event::Type::hardware_exception && outcome.event.vector.raw() < 32);
            [[fallthrough]];
        case Outcome::Kind::interrupted:
        case Outcome::Kind::stepped: MUST(rip == at); break;
        case Outcome::Kind::unsupported: MUST(rip == at || !machine.steady()); break;
    }
    if (outcome.kind == Outcome::Kind::done || is_string(instruction)) return;
    MUST(rip == at);
    if (!machine.steady()) return;
    MUST(same(machine.general, before) && machine.read(Register::rflags) == flags);
    MUST(machine.writes == 0 && machine.device_writes == 0 && machine.ports == 0);
}
