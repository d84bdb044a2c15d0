#include "boot/recording.hpp"

#include "kernel/base/deferred.hpp"
#include "vmm/console/commands.hpp"
#include "vmm/record/recording.hpp"
#include "vmm/virtual_machine.hpp"

namespace bulkhead {
namespace {

constexpr usize record_bytes = 6 * mib;

u8 storage[record_bytes];
constinit Recorder::Tables tables{};
Deferred<Recorder> recorder;
Deferred<RecordingMachine> recording_machine;
Deferred<RecordingFactory> recording_factory;
VirtualMachine* recorded_vm = nullptr;

bool is_recorded(const Vcpu& vcpu) {
    return recorded_vm != nullptr && &vcpu.backend() == recording_factory->backend();
}

}  // namespace

RecordedHardware start_recording(const PhysicalMachine& machine, BackendFactory& factory) {
    recorder.emplace(storage, tables);
    return {.machine = recording_machine.emplace(machine, *recorder),
            .factory = recording_factory.emplace(factory, *recorder)};
}

// --- Calls that come by here in this image, diverted by the linker (cmake/image.cmake)
// ---------------------------------------------------------------------------------------------------------

#define DIVERTED(symbol, name, result, ...)                               \
    extern "C" result real_##name(__VA_ARGS__) __asm__("__real_" symbol); \
    extern "C" result name(__VA_ARGS__) __asm__("__wrap_" symbol);        \
    extern "C" result name(__VA_ARGS__)

DIVERTED("_ZNK8bulkhead11GuestMemory2atENS_7AddressINS_18GuestPhysicalSpaceEEEm", guest_memory_at, u8*,
         const GuestMemory* memory, GuestPhysical address, u64 length) {
    recorder->memory_touched(*memory, address, length);
    return real_guest_memory_at(memory, address, length);
}

DIVERTED(
    "_ZNK8bulkhead11GuestMemory4readENS_7AddressINS_18GuestPhysicalSpaceEEESt4spanIhLm18446744073709551615EE",
    guest_memory_read, bool, const GuestMemory* memory, GuestPhysical address, MutableBytes to) {
    recorder->memory_touched(*memory, address, to.size());
    return real_guest_memory_read(memory, address, to);
}

DIVERTED(
    "_ZNK8bulkhead11GuestMemory5writeENS_7AddressINS_"
    "18GuestPhysicalSpaceEEESt4spanIKhLm18446744073709551615EE",
    guest_memory_write, bool, const GuestMemory* memory, GuestPhysical address, Bytes from) {
    recorder->memory_touched(*memory, address, from.size());
    return real_guest_memory_write(memory, address, from);
}

DIVERTED("_ZN8bulkhead14VirtualMachine8power_onERKNS_10BootImagesE", power_on, Result<StartState>,
         VirtualMachine* vm, const BootImages& images) {
    const bool wanted = vm->number() == 0 && vm->vcpus().size() == 1;
    if (wanted) {
        recorded_vm = vm;
        recorder->begin_power_on();
    }
    auto start = real_power_on(vm, images);
    recorder->suspend();
    return start;
}

DIVERTED("_ZN8bulkhead4Vcpu5resetEPKNS_10StartStateE", vcpu_reset, void, Vcpu* vcpu,
         const StartState* start) {
    if (is_recorded(*vcpu)) recorder->begin_reset();
    real_vcpu_reset(vcpu, start);
    recorder->suspend();
}

DIVERTED("_ZN8bulkhead4Vcpu3runEm", vcpu_run, Vcpu::RunResult, Vcpu* vcpu, u64 deadline) {
    if (!is_recorded(*vcpu)) return real_vcpu_run(vcpu, deadline);
    if (!recorder->prepared()) {
        recorder->end_preparation(recorded_vm->memory(), recorded_vm->apic_assist(),
                                  recording_machine->tsc_hz());
    }
    RecordingBackend& backend = *recording_factory->backend();
    backend.begin_turn(deadline);
    const Vcpu::RunResult result = real_vcpu_run(vcpu, deadline);
    backend.end_turn(static_cast<u8>(result));
    return result;
}

DIVERTED("_ZN8bulkhead14VirtualMachine12serial_inputEh", serial_input, bool, VirtualMachine* vm,
         u8 character) {
    if (vm == recorded_vm) recorder->typed(character);
    return real_serial_input(vm, character);
}

// --- The command
// ---------------------------------------------------------------------------------------------------------

namespace {

constexpr usize bytes_a_line = 48;
constexpr unsigned lines_a_call = 32;

void write_base64(Sink& out, Bytes bytes) {
    static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[4 * bytes_a_line / 3];
    usize size = 0;
    for (usize i = 0; i < bytes.size(); i += 3) {
        u32 three = 0;
        for (usize k = 0; k < 3; ++k) three = three << 8 | (i + k < bytes.size() ? bytes[i + k] : 0U);
        for (unsigned k = 0; k < 4; ++k)
            text[size++] = i + k <= bytes.size() ? digits[three >> (18 - 6 * k) & 63] : '=';
    }
    out.write({text, size});
}

// position: what has been printed; end: how much there is.
void print_recording(CommandContext& context) {
    Sink& out = context.out;
    if (context.calls == 0) {
        u64 limit = 0;
        if (!context.option_number("--limit=", 1, ~u64{0}, limit)) return;
        if (limit != 0) {
            recorder->set_limit(limit);
            return context.done("so many exits are recorded");
        }
        if (!recorder->prepared()) return context.fail("nothing is recorded: the first VM has not run");
        recorder->stop();
        context.end = recorder->size();
        print(out, "recording: {} bytes, {} exits\n", context.end, recorder->exits());
    }
    for (unsigned i = 0; i < lines_a_call && context.position < context.end; ++i) {
        const usize left = context.end - context.position;
        const usize count = left < bytes_a_line ? left : bytes_a_line;
        out.write(":");
        write_base64(out, {storage + context.position, count});
        out.write("\n");
        context.position += count;
    }
    if (context.position < context.end) return context.again();
    u64 checksum = 0xCBF29CE484222325;
    for (u64 i = 0; i < context.end; ++i) checksum = (checksum ^ storage[i]) * 0x100000001B3;
    print(out, "recording: end, checksum {:016x}\n", checksum);
}

constexpr Command rows[] = {
    {.name = "recording",
     .usage = "recording [--limit=EXITS]",
     .summary = "end the recording of exits and print it",
     .help = "Ends the recording of the first VM's exits and prints it: lines that begin with a colon,\n"
             "in base 64. scripts/record makes a file of them. --limit: prints nothing, but lets the\n"
             "recording end after so many exits.\n",
     .example = "recording",
     .run = print_recording,
     .json = false,
     .options = {"--limit="}},
};

}  // namespace

constinit const std::span<const Command> recording_commands = rows;

}  // namespace bulkhead
