// B25 to B30: exceptions, traps and interrupts, as instructions that exit and instructions that do not meet
// them.
#include "tests/guests/inmate/probe.hpp"

namespace {

struct Stepped {
    const char* name;
    Code code;
};

u64 device_page;  // what device_at is mapped to

void map_device(u64 physical) {
    map_page(device_at, physical, page_present | page_writable | page_user | page_uncached);
    device_page = physical;
}

// With TF set, a #DB follows each instruction, however it was carried out.
void single_steps() {
    map_device(0xFEC00000);
    Entry base = with(rax, device_at, rcx, 0x277);
    base.gpr[rdx] = 0x80;
    base.gpr[rbx] = 0;
    base.rflags = 2 | rflags_tf;
    const Stepped steps[] = {
        {"nop", {0x90}},
        {"cpuid", {0x0F, 0xA2}},
        {"rdtsc", {0x0F, 0x31}},
        {"rdmsr", {0x0F, 0x32}},
        {"in", {0xEC}},
        {"out", {0xEE}},
        {"in.immediate", {0xE5, 0x80}},
        {"wbinvd", {0x0F, 0x09}},
        {"invd", {0x0F, 0x08}},
        {"invlpg", {0x0F, 0x01, 0x38}},
        {"clts", {0x0F, 0x06}},
        {"pause", {0xF3, 0x90}},
        {"mov-from-cr0", {0x0F, 0x20, 0xC3}},
        {"mov-from-cr3", {0x0F, 0x20, 0xDB}},
        {"mov-from-cr4", {0x0F, 0x20, 0xE3}},
        {"mov-from-cr8", {0x44, 0x0F, 0x20, 0xC3}},
        {"mov-to-cr8", {0x44, 0x0F, 0x22, 0xC3}},
        {"mov-to-cr2", {0x0F, 0x22, 0xD3}},
        {"mov-from-dr7", {0x0F, 0x21, 0xFB}},
        {"mov-to-dr0", {0x0F, 0x23, 0xC3}},
        {"sgdt", {0x0F, 0x01, 0x04, 0x24}},
        {"sidt", {0x0F, 0x01, 0x0C, 0x24}},
        {"smsw", {0x0F, 0x01, 0xE3}},
        {"device.load", {0x8B, 0x08}},
        {"device.store", {0x89, 0x18}},
        {"device.load8", {0x8A, 0x08}},
        {"device.add", {0x03, 0x08}},
        {"device.or-to", {0x09, 0x18}},
        {"device.movzx", {0x0F, 0xB6, 0x08}},
        {"device.test", {0x85, 0x18}},
        {"device.cmp", {0x39, 0x18}},
        {"device.push", {0xFF, 0x30}},
        {"hypercall", machine.intel ? Code{0x0F, 0x01, 0xC1} : Code{0x0F, 0x01, 0xD9}},
    };
    for (const Stepped& step : steps) {
        write_dr6(0xFFFF0FF0);
        Entry in = base;
        in.gpr[rsp] = stack_at - 64;
        const Outcome& o = run(step.code + Code{0x90}, Mode::long0, in);
        check("B25", Text() << "step." << step.name,
              o.vector == 1 && o.rip == code_at + step.code.size && (o.dr6 & bit(14)) != 0 &&
                  (o.dr6 & 0xF) == 0,
              Text() << "vector " << o.vector << " at " << Hex{o.rip - code_at} << " DR6 " << Hex{o.dr6});
    }
    // After MOV SS and after STI the next instruction is still run.
    struct {
        const char* name;
        Code next;
    } const shadowed[] = {{"nop", {0x90}},
                          {"cpuid", {0x0F, 0xA2}},
                          {"in", {0xEC}},
                          {"rdmsr", {0x0F, 0x32}},
                          {"device.load", {0x8B, 0x08}},
                          {"wbinvd", {0x0F, 0x09}},
                          {"mov-from-cr3", {0x0F, 0x20, 0xDB}}};
    for (const auto& each : shadowed) {
        write_dr6(0xFFFF0FF0);
        Entry in = base;
        in.gpr[rbx] = 0x10;
        const Code code = Code{0x8E, 0xD3} + each.next + Code{0x90};
        const Outcome& o = run(code, Mode::long0, in);
        check("B25", Text() << "mov-ss." << each.name, o.vector == 1 && o.rip == code_at + 2 + each.next.size,
              Text() << "vector " << o.vector << " at " << Hex{o.rip - code_at});
    }
    // A REP string steps once for each element.
    for (const u8 opcode : {u8{0x6E}, u8{0x6C}, u8{0xA4}, u8{0xAA}, u8{0xAC}}) {
        write_dr6(0xFFFF0FF0);
        Entry in = with(rcx, 5, rsi, data_at);
        in.gpr[rdi] = data_at + 256;
        in.gpr[rdx] = 0x80;
        in.rflags = 2 | rflags_tf;
        const Outcome& o = run({0xF3, opcode, 0x90}, Mode::long0, in);
        check("B25", Text() << "step.rep." << Hex{opcode},
              o.vector == 1 && o.rip == code_at && o.gpr[rcx] == 4,
              Text() << "vector " << o.vector << " at " << Hex{o.rip - code_at} << " RCX " << o.gpr[rcx]);
    }
    // TF and a fault: the fault comes, and no #DB.
    for (const Stepped& step : {Stepped{"rdmsr", {0x0F, 0x32}}, Stepped{"ud2", {0x0F, 0x0B}},
                                Stepped{"mov-to-cr8", {0x44, 0x0F, 0x22, 0xC1}}}) {
        Entry in = with(rcx, 0xDEAD0000);
        in.rflags = 2 | rflags_tf;
        faults("B25", Text() << "step.fault." << step.name, step.code,
               step.name[0] == 'u' ? undefined : general_protection, in);
    }
    // INT3 and INT n with TF: the handler is not stepped, the trap frame has TF.
    Entry in = pattern();
    in.rflags = 2 | rflags_tf;
    const Outcome& o = run({0xCD, 0x60}, Mode::long0, in);
    check("B25", "step.int-n", o.vector == 0x60 && o.rip == code_at + 2 && (o.rflags & rflags_tf) != 0,
          Text() << "vector " << o.vector << " at " << Hex{o.rip - code_at});
    // Watchpoints and breakpoints on what exits.
    write_dr0(code_at + 1);
    write_dr6(0xFFFF0FF0);
    for (const Stepped& step : {Stepped{"cpuid", {0x90, 0x0F, 0xA2}}, Stepped{"in", {0x90, 0xEC}},
                                Stepped{"device", {0x90, 0x8B, 0x08}}}) {
        write_dr7(0x402);
        Entry stop = base;
        stop.rflags = 2;
        const Outcome& b = run(step.code, Mode::long0, stop);
        const u64 vector = b.vector, rip = b.rip, dr6 = b.dr6;
        write_dr7(0x400);
        write_dr6(0xFFFF0FF0);
        check("B25", Text() << "breakpoint." << step.name,
              vector == 1 && rip == code_at + 1 && (dr6 & 1) != 0,
              Text() << "vector " << vector << " at " << Hex{rip - code_at} << " DR6 " << Hex{dr6});
    }
    write_dr0(0);
}

// Interrupt gates that are not there, or not for this ring.
void gates() {
    struct [[gnu::packed]] {
        u16 limit;
        u64 base;
    } table{0xFFF, reinterpret_cast<u64>(idt)};
    for (const unsigned vector :
         {0U, 1U, 2U, 8U, 13U, 14U, 18U, 0x20U, 0x21U, 0x30U, 0x80U, 0x81U, 0xEFU, 0xFFU}) {
        const u8 number = static_cast<u8>(vector);
        const Outcome& o = run({0xCD, number}, Mode::long0, pattern());
        // Vectors with an error code get none from INT n: the stub's frame is one word short then.
        const bool has_error = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
        if (!has_error)
            check("B28", Text() << "int." << vector, o.vector == vector && o.rip == code_at + 2,
                  Text() << "vector " << o.vector);
        faults("B28", Text() << "int.ring3." << vector, {0xCD, number}, {13, 8 * u64{vector} + 2}, pattern(),
               Mode::long3);
        if (vector < 0x20) continue;
        table.limit = static_cast<u16>(vector * 16 + 14);  // a byte short
        asm volatile("lidt %0" ::"m"(table));
        faults("B28", Text() << "int.limit." << vector, {0xCD, number}, {13, 8 * u64{vector} + 2}, pattern());
        table.limit = 0xFFF;
        asm volatile("lidt %0" ::"m"(table));
        // Not present, and not a gate.
        u8& type = idt[vector * 16 + 5];
        const u8 before = type;
        type = before & 0x7F;
        faults("B28", Text() << "int.absent." << vector, {0xCD, number}, {11, 8 * u64{vector} + 2},
               pattern());
        for (const u8 kind : {u8{0x80}, u8{0x85}, u8{0x86}, u8{0x87}, u8{0x89}, u8{0x8C}, u8{0x92}}) {
            type = kind;
            faults("B28", Text() << "int.type." << Hex{kind} << '.' << vector, {0xCD, number},
                   {13, 8 * u64{vector} + 2}, pattern());
        }
        type = before;
    }
    faults("B28", "icebp.not-int1", {0xCD, 0x01}, {13, 10}, pattern(), Mode::long3);
    const Outcome& o = run({0xF1}, Mode::long3, pattern());
    check("B28", "int1.ring3", o.vector == 1 && o.rip == user_code_at + 1, Text() << "vector " << o.vector);
}

// Descriptors of every kind in the data segment registers, the code segment, the task register and the LDTR.
void descriptors() {
    constexpr u64 slot = 0x50;
    const auto set = [](u64 low, u64 high = 0) {
        gdt[slot / 8] = low;
        gdt[slot / 8 + 1] = high;
    };
    const auto of_type = [](unsigned access) { return u64{0x00CF00000000FFFF} | u64{access} << 40; };
    for (unsigned type = 0; type < 32; ++type) {
        const unsigned access = 0x80 | type;
        const bool system = type < 16, code = type >= 24, readable = (type & 2) != 0;
        set(of_type(access));
        Text name = Text() << "mov-ds.type." << type;
        const Entry in = with(rax, slot);
        if (system || (code && !readable)) {
            faults("B29", name, {0x8E, 0xD8}, {13, slot}, in);
        } else {
            runs("B29", name, {0x8E, 0xD8}, in);
        }
        set(of_type(access));
        name = Text() << "mov-ss.type." << type;
        if (system || code || !readable) {
            faults("B29", name, {0x8E, 0xD0}, {13, slot}, in);
        } else {
            runs("B29", name, {0x8E, 0xD0}, in);
        }
        reload_segments();
        // Not present.
        set(of_type(type));
        if (!system && (!code || readable))
            faults("B29", Text() << "mov-es.absent." << type, {0x8E, 0xC0}, {11, slot}, in);
        if (!system && !code && readable)
            faults("B29", Text() << "mov-ss.absent." << type, {0x8E, 0xD0}, {12, slot}, in);
        // The task register and the local table take one kind each.
        set(of_type(access) & ~(u64{0xF} << 48));
        if (type != 9) faults("B29", Text() << "ltr.type." << type, {0x0F, 0x00, 0xD8}, {13, slot}, in);
        if (type != 2) faults("B29", Text() << "lldt.type." << type, {0x0F, 0x00, 0xD0}, {13, slot}, in);
        // A far return to what is no code.
        if (!code) {
            set(of_type(access));
            faults("B29", Text() << "retf.type." << type, {0x50, 0x6A, 0x00, 0x48, 0xCB}, {13, slot}, in,
                   Mode::long0, 3);
        }
    }
    for (const u64 selector : {u64{0x100}, u64{0x1000}, u64{0xFFF8}, u64{0x54}, u64{0xFFFC}}) {
        const u64 error = selector & 0xFFFC;
        faults("B29", Text() << "mov-ds.selector." << Hex{selector}, {0x8E, 0xD8}, {13, error},
               with(rax, selector));
        faults("B29", Text() << "mov-ss.selector." << Hex{selector}, {0x8E, 0xD0}, {13, error},
               with(rax, selector));
        faults("B29", Text() << "ltr.selector." << Hex{selector}, {0x0F, 0x00, 0xD8}, {13, error},
               with(rax, selector));
    }
    faults("B29", "mov-ss.rpl", {0x8E, 0xD0}, {13, 0x10}, with(rax, 0x13));
    faults("B29", "mov-ss.null.ring3", {0x8E, 0xD0}, {13, 0}, with(rax, 0), Mode::long3);
    faults("B29", "mov-ds.dpl.ring3", {0x8E, 0xD8}, {13, 0x10}, with(rax, 0x13), Mode::long3);
    faults("B29", "ltr.null", {0x0F, 0x00, 0xD8}, {13, 0}, with(rax, 0));
    faults("B29", "ltr.busy", {0x0F, 0x00, 0xD8}, {13, 0x40}, with(rax, 0x40));
    faults("B29", "ltr.ring3", {0x0F, 0x00, 0xD8}, {13, 0}, with(rax, 0x40), Mode::long3);
    for (const u8 modrm : {u8{0x10}, u8{0x18}})
        faults("B29", Text() << "load-table.ring3." << Hex{modrm}, {0x0F, 0x01, modrm}, {13, 0},
               with(rax, user_data_at), Mode::long3);
    // Where a task switch would be elsewhere, 64-bit mode has #GP.
    set(0x0000890000000067);
    data_pages()[0] = data_pages()[1] = data_pages()[2] = data_pages()[3] = 0;
    *reinterpret_cast<u16*>(data_pages() + 4) = slot;
    faults("B26", "jmp-far.tss", {0xFF, 0x28}, {13, slot}, with(rax, data_at));
    faults("B26", "call-far.tss", {0xFF, 0x18}, {13, slot}, with(rax, data_at));
    *reinterpret_cast<u16*>(data_pages() + 4) = 0x40;
    faults("B26", "jmp-far.busy-tss", {0xFF, 0x28}, {13, 0x40}, with(rax, data_at));
    set(0x0000850000400000);  // a task gate
    *reinterpret_cast<u16*>(data_pages() + 4) = slot;
    faults("B26", "jmp-far.task-gate", {0xFF, 0x28}, {13, slot}, with(rax, data_at));
    faults("B26", "call-far.task-gate", {0xFF, 0x18}, {13, slot}, with(rax, data_at));
    faults("B26", "jmp-far.compat.tss", {0xFF, 0x28}, {13, slot}, with(rax, data_at), Mode::compat0);
    // NT and IRET: a return to a task is #GP in long mode.
    Entry nested = pattern();
    nested.rflags = 2 | bit(14);
    faults("B26", "iret.nt", {0xCF}, {13, 0}, nested);
    faults("B26", "iretq.nt", {0x48, 0xCF}, {13, 0}, nested);
    faults("B26", "iret.nt.compat", {0xCF}, {13, 0}, nested, Mode::compat0);
    set(0);
}

// RIP and RSP that are not canonical, and jumps to where nothing can be executed.
void bad_addresses() {
    for (const u64 address : {u64{0x0000800000000000}, u64{0x8000000000000000}, u64{0xFFFF7FFFFFFFFFFF}}) {
        faults("B29", Text() << "jmp." << Hex{address}, {0xFF, 0xE0}, general_protection, with(rax, address));
        faults("B29", Text() << "call." << Hex{address}, {0xFF, 0xD0}, general_protection,
               with(rax, address));
        faults("B29", Text() << "ret." << Hex{address}, {0x50, 0xC3}, general_protection, with(rax, address),
               Mode::long0, 1);
        faults("B29", Text() << "load." << Hex{address}, {0x8B, 0x18}, general_protection,
               with(rax, address));
        faults("B29", Text() << "store." << Hex{address}, {0x89, 0x18}, general_protection,
               with(rax, address));
        Entry in = pattern();
        in.gpr[rsp] = address;
        // What is pushed lies below: just below the first hole it is canonical.
        if (address != 0x0000800000000000)
            faults("B29", Text() << "push." << Hex{address}, {0x50}, {12, 0}, in);
        faults("B29", Text() << "pop." << Hex{address}, {0x58}, {12, 0}, in);
    }
    // Execution where no memory is: all-ones are FFh FFh, no instruction.
    for (const u64 physical : {u64{0xC0000000}, u64{0xD0000000}, u64{0xFED00000}, u64{0xFEC00000},
                               u64{0xFEE00000}, u64{0xFEE01000}, u64{0xFEB00000}, u64{0xFFE00000}}) {
        map_device(physical);
        const Outcome& o = run({0xFF, 0xE0}, Mode::long0, with(rax, device_at));
        check("B30", Text() << "execute." << Hex{physical}, o.vector == 6 && o.rip == device_at,
              Text() << "vector " << o.vector << " error " << Hex{o.error} << " at " << Hex{o.rip});
    }
    map_device(0xC0000000);
    map_page(device_at, reinterpret_cast<u64>(data_pages()), page_present | page_writable | bit(63));
    const u64 efer = rdmsr(0xC0000080);
    if ((machine.extended.edx & bit(20)) != 0) {
        wrmsr(0xC0000080, efer | bit(11));
        const Outcome& o = run({0xFF, 0xE0}, Mode::long0, with(rax, device_at));
        check("B30", "execute.nx", o.vector == 14 && o.error == 0x11 && o.cr2 == device_at,
              Text() << "vector " << o.vector << " error " << Hex{o.error});
        unmap_page(device_at);
        wrmsr(0xC0000080, efer);
    }
}

}  // namespace

void probe_events() {
    single_steps();
    gates();
    descriptors();
    bad_addresses();
}
