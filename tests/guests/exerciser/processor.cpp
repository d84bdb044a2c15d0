#include "tests/guests/exerciser/processor.hpp"

extern "C" {
u8 tolerates_interrupts;
extern u8 event_stubs[], trampoline[], trampoline_end[];
extern u64 event_table[];
[[noreturn]] void enter_processor(Processor* self);
void run_step(Processor* self, const Entry* entry);
[[noreturn]] void unexpected_event_of(Processor& self, u64 vector, u64 error, u64 rip);
}

namespace {

constexpr u64 event_stack_top = 0x27F40, nmi_stack_top = 0x2FF40, ring0_stack_top = 0x37F40,
              interrupt_stack_top = 0x3FF40;

void prepare(Processor& self, u64 number) {
    memset(&self, 0, block_size);
    self.number = number;
    self.code_used = 4096;
    const auto at = [&](u64 offset) { return reinterpret_cast<u64>(self.memory(offset)); };
    constexpr u64 all = page_present | page_writable | page_user, kernel = page_present | page_writable;
    // The first 4 GiB as the runtime's tables have them, but for the window's 2 MiB.
    auto* const top = reinterpret_cast<u64*>(at(0x1000));
    auto* const pointers = reinterpret_cast<u64*>(at(0x2000));
    auto* const directory = reinterpret_cast<u64*>(at(0x3000));
    top[0] = at(0x2000) | all;
    for (u64 i = 0; i < 4; ++i) pointers[i] = (reinterpret_cast<u64>(page_directories) + i * 4096) | all;
    pointers[window >> 30] = at(0x3000) | all;
    memcpy(directory, page_directories + 512 * (window >> 30), 4096);
    directory[window >> 21 & 511] = at(0x4000) | all;
    u64* const table = self.window_table();
    const auto map = [&](u64 address, u64 offset, u64 flags) {
        table[address >> 12 & 511] = at(offset) | flags;
    };
    map(code_at, 0x5000, kernel);
    map(user_code_at, 0x5000, all);
    for (u64 page = 0; page < 0x2000; page += 0x1000) {
        map(data_at + page, 0x6000 + page, kernel);
        map(user_data_at + page, 0x6000 + page, all);
    }
    map(stack_at - 0x1000, 0x8000, kernel);
    map(user_stack_at - 0x1000, 0x8000, all);
    // The runtime's descriptors, with a task state of its own.
    auto* const descriptors = reinterpret_cast<u64*>(at(0x9000));
    memcpy(descriptors, gdt, 10 * 8);
    const u64 task = at(0x9800);
    descriptors[8] = 0x67 | (task & 0xFFFFFF) << 16 | u64{0x89} << 40 | (task >> 24 & 0xFF) << 56;
    descriptors[9] = task >> 32;
    *reinterpret_cast<u64*>(task + 4) = at(ring0_stack_top);
    *reinterpret_cast<u64*>(task + 0x24) = at(event_stack_top);
    *reinterpret_cast<u64*>(task + 0x2C) = at(nmi_stack_top);
    *reinterpret_cast<u64*>(task + 0x34) = at(interrupt_stack_top);
    *reinterpret_cast<u16*>(task + 0x66) = 0x68;  // no I/O permission bitmap
}

}  // namespace

void Processor::map(u64 virtual_address, u64 physical, u64 flags) {
    window_table()[virtual_address >> 12 & 511] = physical | flags;
    asm volatile("invlpg (%0)" ::"r"(virtual_address) : "memory");
}

const Outcome& Processor::run(const Code& instructions, Mode mode, const Entry& in) {
    memset(code(), 0xCC, code_used);
    memcpy(code(), instructions.bytes, instructions.size);
    code_used = instructions.size;
    Entry entry = in;
    entry.rip = begin_of(mode);
    const bool ring3 = mode == Mode::long3 || mode == Mode::compat3;
    constexpr u64 selectors[] = {0x08, 0x2B, 0x18, 0x3B, 0x20};
    entry.cs = selectors[static_cast<unsigned>(mode)];
    if (ring3) entry.ss = entry.ds = 0x33;
    if (entry.gpr[rsp] == 0) entry.gpr[rsp] = ring3 ? user_stack_at : stack_at;
    run_step(this, &entry);
    return outcome;
}

void send_ipi(u64 number, u32 command) {
    store<u32>(apic + 0x310, static_cast<u32>(number << 24));
    store<u32>(apic + 0x300, command);
}

bool is_lost_in_nmi(const Processor& processor) {
    constexpr u64 rip = 5 * 8, rsp = 2 * 8;  // of the frame, below the stack's top
    const u64 top = reinterpret_cast<u64>(&processor) + nmi_stack_top;
    const u64 code = load<u64>(top - rip), stack = load<u64>(top - rsp);
    const u64 stubs = reinterpret_cast<u64>(event_stubs);
    return code >= stubs - 4096 && code < stubs + 4096 && stack <= top && stack > top - 4096;
}

void start_processor(u64 number) {
    send_ipi(number, 0x4500);
    send_ipi(number, 0x4600 | trampoline_at >> 12);
}

void start_processors(unsigned count) {
    auto* const table = reinterpret_cast<u64*>(event_table);
    for (u64 vector = 0; vector < 256; ++vector) {
        const u64 stub = reinterpret_cast<u64>(event_stubs) + 16 * vector;
        // NMIs and exceptions have stacks of their own; INT3 and INTO may come from ring 3. Interrupts stay
        // on the stack that is in use: where they come though they are disabled, they do so within one
        // another.
        const u64 attributes = vector == 2                  ? 0x8E02
                               : vector >= 32               ? 0x8E00
                               : vector == 3 || vector == 4 ? 0xEE01
                                                            : 0x8E01;
        table[2 * vector] =
            (stub & 0xFFFF) | u64{0x08} << 16 | attributes << 32 | (stub >> 16 & 0xFFFF) << 48;
        table[2 * vector + 1] = stub >> 32;
    }
    memcpy(reinterpret_cast<void*>(trampoline_at), trampoline,
           static_cast<usize>(trampoline_end - trampoline));
    for (u64 i = 0; i < count; ++i) prepare(processor(i), i);
    store<u32>(apic + 0xF0, 0x1FF);
    for (u64 i = 1; i < count; ++i) start_processor(i);
    enter_processor(&processor(0));
}

// In the program itself nothing may strike but an NMI or a breakpoint: the guest is broken, or what it runs
// on.
void unexpected_event_of(Processor& self, u64 vector, u64 error, u64 rip) {
    self.line().at = rip;
    self.line().unexpected = 0x100 + vector;
    out8(0x3FB, 3);
    out8(0x3FC, 0x0B);
    print(Text() << "\r\nUNEXPECTED vector " << vector << " error " << Hex{error} << " at " << Hex{rip}
                 << " cr2 " << Hex{read_cr2()} << " on processor " << self.number << " at step "
                 << self.line().step << "\r\n");
    for (;;) asm volatile("cli; hlt");
}
