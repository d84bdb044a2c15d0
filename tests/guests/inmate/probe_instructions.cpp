// A16, B17 to B21, B28, B29, C34, C37 to C39: instructions that are not there, or not for everyone.
#include "tests/guests/inmate/probe.hpp"

namespace {

struct Named {
    const char* name;
    Code code;
};

// All with a memory operand at [RAX] or register operands.
constexpr Named vmx[] = {
    {"vmcall.prefixed", {0xF2, 0x0F, 0x01, 0xC2}},
    {"vmlaunch", {0x0F, 0x01, 0xC2}},
    {"vmresume", {0x0F, 0x01, 0xC3}},
    {"vmxoff", {0x0F, 0x01, 0xC4}},
    {"vmfunc", {0x0F, 0x01, 0xD4}},
    {"vmread", {0x0F, 0x78, 0xC8}},
    {"vmread.mem", {0x0F, 0x78, 0x08}},
    {"vmwrite", {0x0F, 0x79, 0xC8}},
    {"vmwrite.mem", {0x0F, 0x79, 0x08}},
    {"vmptrld", {0x0F, 0xC7, 0x30}},
    {"vmptrst", {0x0F, 0xC7, 0x38}},
    {"vmclear", {0x66, 0x0F, 0xC7, 0x30}},
    {"vmxon", {0xF3, 0x0F, 0xC7, 0x30}},
    {"invept", {0x66, 0x0F, 0x38, 0x80, 0x08}},
    {"invvpid", {0x66, 0x0F, 0x38, 0x81, 0x08}},
};
constexpr Named svm[] = {
    {"vmrun", {0x0F, 0x01, 0xD8}},
    {"vmload", {0x0F, 0x01, 0xDA}},
    {"vmsave", {0x0F, 0x01, 0xDB}},
    {"stgi", {0x0F, 0x01, 0xDC}},
    {"clgi", {0x0F, 0x01, 0xDD}},
    {"skinit", {0x0F, 0x01, 0xDE}},
    {"invlpga", {0x0F, 0x01, 0xDF}},
    {"pvalidate", {0xF2, 0x0F, 0x01, 0xFF}},
    {"psmash", {0xF3, 0x0F, 0x01, 0xFF}},
    {"rmpadjust", {0xF3, 0x0F, 0x01, 0xFE}},
    {"rmpupdate", {0xF2, 0x0F, 0x01, 0xFE}},
};
constexpr Named others[] = {
    {"getsec", {0x0F, 0x37}},
    {"rsm", {0x0F, 0xAA}},
    {"enclv", {0x0F, 0x01, 0xC0}},
    {"encls", {0x0F, 0x01, 0xCF}},
    {"enclu", {0x0F, 0x01, 0xD7}},
    {"pconfig", {0x0F, 0x01, 0xC5}},
    {"wrmsrns", {0x0F, 0x01, 0xC6}},
    {"seamcall", {0x66, 0x0F, 0x01, 0xCF}},
    {"tdcall", {0x66, 0x0F, 0x01, 0xCC}},
    {"clui", {0xF3, 0x0F, 0x01, 0xEE}},
    {"stui", {0xF3, 0x0F, 0x01, 0xEF}},
    {"testui", {0xF3, 0x0F, 0x01, 0xED}},
    {"setssbsy", {0xF3, 0x0F, 0x01, 0xE8}},
    {"saveprevssp", {0xF3, 0x0F, 0x01, 0xEA}},
    {"invlpgb", {0x0F, 0x01, 0xFE}},
    {"tlbsync", {0x0F, 0x01, 0xFF}},
    {"mcommit", {0xF3, 0x0F, 0x01, 0xFA}},
    {"ud0", {0x0F, 0xFF, 0xC0}},
    {"ud1", {0x0F, 0xB9, 0xC0}},
    {"ud2", {0x0F, 0x0B}},
    {"forced-emulation.xen", {0x0F, 0x0B, 0x78, 0x65, 0x6E, 0x0F, 0xA2}},
    {"forced-emulation.kvm", {0x0F, 0x0B, 0x6B, 0x76, 0x6D, 0x0F, 0xA2}},
    {"0f04", {0x0F, 0x04}},
    {"0f0a", {0x0F, 0x0A}},
    {"0f0c", {0x0F, 0x0C}},
    {"0f24", {0x0F, 0x24, 0xC0}},
    {"0f26", {0x0F, 0x26, 0xC0}},
    {"0f36", {0x0F, 0x36}},
    {"0f39", {0x0F, 0x39}},
    {"0fa6", {0x0F, 0xA6, 0xC0}},
    {"group8.0", {0x0F, 0xBA, 0xC0, 0x01}},
    {"group9.0", {0x0F, 0xC7, 0x00}},
    {"group9.2", {0x0F, 0xC7, 0x10}},
    {"mov-cs", {0x8E, 0xC8}},
    {"mov-segment.6", {0x8E, 0xF0}},
    {"mov-segment.7", {0x8C, 0xF8}},
    {"group4.2", {0xFE, 0xD0}},
    {"group5.7", {0xFF, 0xF8}},
    {"call-far-register", {0xFF, 0xD8}},
    {"jmp-far-register", {0xFF, 0xE8}},
    {"lea-register", {0x8D, 0xC0}},
    {"pop.1", {0x8F, 0xC8}},
    {"mov.1", {0xC7, 0xC8, 0, 0, 0, 0}},
    {"cmpxchg8b-register", {0x0F, 0xC7, 0xC8}},
};
// One-byte opcodes that 64-bit mode took away.
constexpr u8 gone[] = {0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27,
                       0x2F, 0x37, 0x3F, 0x60, 0x61, 0xCE, 0xD6};

void in_all_modes(const char* id, const Named& each, Fault in_ring3 = undefined) {
    constexpr struct {
        const char* name;
        Mode mode;
    } modes[] = {
        {"", Mode::long0}, {".ring3", Mode::long3}, {".compat", Mode::compat0}, {".compat3", Mode::compat3}};
    for (const auto& mode : modes) {
        const bool ring3 = mode.mode == Mode::long3 || mode.mode == Mode::compat3;
        Entry in = with(rax, ring3 ? user_data_at : data_at);
        in.gpr[rcx] = in.gpr[rdx] = 0;
        faults(id, Text() << each.name << mode.name, each.code, ring3 ? in_ring3 : undefined, in, mode.mode);
    }
}

void virtualisation() {
    for (const Named& each : vmx) in_all_modes("B17", each);
    // Under AMD-V the guest's EFER.SVME is set in hardware: ring 3 gets #GP for its ring before any
    // interception.
    for (const Named& each : svm) {
        const bool by_ring = machine.amd && each.code.bytes[0] == 0x0F && each.code.bytes[2] != 0xDE;
        in_all_modes("B17", each, by_ring ? general_protection : undefined);
    }
    for (const Named& each : others) in_all_modes(each.name[0] == 'f' ? "C38" : "B21", each);
    for (const u8 opcode : gone)
        faults("B21", Text() << "gone." << Hex{opcode, 2}, {opcode, 0x00, 0x00}, undefined, pattern());
    // 9A, EA, C4, C5 are far calls and loads elsewhere; D4 and D5 want an immediate byte.
    faults("B21", "gone.9a", {0x9A, 0, 0, 0, 0, 0, 0}, undefined, pattern());
    faults("B21", "gone.ea", {0xEA, 0, 0, 0, 0, 0, 0}, undefined, pattern());
    faults("B21", "gone.d4", {0xD4, 0x0A}, undefined, pattern());
    faults("B21", "gone.d5", {0xD5, 0x0A}, undefined, pattern());
    faults("B21", "gone.82", {0x82, 0xC0, 0x01}, undefined, pattern());
}

void hypercalls() {
    const Code own = machine.intel ? Code{0x0F, 0x01, 0xC1} : Code{0x0F, 0x01, 0xD9};
    const Code foreign = machine.intel ? Code{0x0F, 0x01, 0xD9} : Code{0x0F, 0x01, 0xC1};
    constexpr u64 numbers[] = {0,       1,       2,       17,         34,         0xFFFF,
                               0x10000, bit(31), bit(32), 0x80000000, 0x40000000, 0xFFFFFFFF,
                               bit(63), ~u64{0}, 0x1000,  0x48490001, 0x564D5868, 0x8000000000000001};
    for (const u64 number : numbers) {
        const Outcome& o = run(own, Mode::long0, with(rax, number));
        const Entry in = with(rax, number);
        bool kept = true;
        for (unsigned i = 1; i < 16; ++i) kept = kept && (i == rsp || o.gpr[i] == in.gpr[i]);
        check("B18", Text() << "call." << Hex{number},
              o.vector == 3 && o.gpr[rax] == static_cast<u64>(-38) && kept,
              Text() << "vector " << o.vector << " RAX " << Hex{o.gpr[rax]});
    }
    for (const u64 number : {u64{0}, u64{1}, u64{0xFFFFFFFF}}) {
        faults("B18", Text() << "call.ring3." << Hex{number}, own, undefined, with(rax, number), Mode::long3);
        faults("B18", Text() << "call.compat3." << Hex{number}, own, undefined, with(rax, number),
               Mode::compat3);
        const Outcome& o = run(own, Mode::compat0, with(rax, number));
        check("B18", Text() << "call.compat." << Hex{number}, o.vector == 3 && o.gpr[rax] == 0xFFFFFFDA,
              Text() << "vector " << o.vector << " RAX " << Hex{o.gpr[rax]});
    }
    in_all_modes("B18", {"the-other-vendors", foreign});
}

void caches() {
    u8* const memory = data_pages();
    memset(memory, 0x5A, 8192);
    runs("B19", "invd", {0x0F, 0x08}, pattern());
    bool kept = true;
    for (unsigned i = 0; i < 8192; ++i) kept = kept && memory[i] == 0x5A;
    check("B19", "invd.keeps-memory", kept);
    runs("B19", "wbinvd", {0x0F, 0x09}, pattern());
    faults("B19", "invd.ring3", {0x0F, 0x08}, general_protection, pattern(), Mode::long3);
    faults("B19", "wbinvd.ring3", {0x0F, 0x09}, general_protection, pattern(), Mode::long3);
    faults("B19", "invd.lock", {0xF0, 0x0F, 0x08}, undefined, pattern());
    faults("B19", "wbinvd.lock", {0xF0, 0x0F, 0x09}, undefined, pattern());
    runs("B19", "invlpg", {0x0F, 0x01, 0x38}, with(rax, data_at));
    runs("B19", "invlpg.non-canonical", {0x0F, 0x01, 0x38}, with(rax, bit(63)));
    faults("B19", "invlpg.ring3", {0x0F, 0x01, 0x38}, general_protection, with(rax, data_at), Mode::long3);
}

void hidden_features() {
    for (const u64 index : {u64{0}, u64{1}, u64{7}, bit(30), bit(31), bit(30) | 1, u64{0xFFFFFFFF}}) {
        faults("A16", Text() << "rdpmc." << Hex{index}, {0x0F, 0x33}, general_protection, with(rcx, index));
        faults("A16", Text() << "rdpmc.ring3." << Hex{index}, {0x0F, 0x33}, general_protection,
               with(rcx, index), Mode::long3);
    }
    const auto hidden = [](const char* name, bool there, const Code& code) {
        if (there) {
            skip("A16", name, "the processor shows it");
        } else {
            faults("A16", Text() << name, code, undefined, with(rax, data_at, rcx, 0));
            faults("A16", Text() << name << ".ring3", code, undefined, with(rax, user_data_at, rcx, 0),
                   Mode::long3);
        }
    };
    const bool monitor = (machine.one.ecx & bit(3)) != 0;
    hidden("monitor", monitor, {0x0F, 0x01, 0xC8});
    hidden("mwait", monitor, {0x0F, 0x01, 0xC9});
    hidden("monitorx", (machine.extended.ecx & bit(29)) != 0, {0x0F, 0x01, 0xFA});
    hidden("mwaitx", (machine.extended.ecx & bit(29)) != 0, {0x0F, 0x01, 0xFB});
    hidden("rdtscp", (machine.extended.edx & bit(27)) != 0, {0x0F, 0x01, 0xF9});
    hidden("rdpid", (machine.seven.ecx & bit(22)) != 0, {0xF3, 0x0F, 0xC7, 0xF9});
    hidden("umonitor", (machine.seven.ecx & bit(5)) != 0, {0xF3, 0x0F, 0xAE, 0xF0});
    hidden("umwait", (machine.seven.ecx & bit(5)) != 0, {0xF2, 0x0F, 0xAE, 0xF0});
    hidden("tpause", (machine.seven.ecx & bit(5)) != 0, {0x66, 0x0F, 0xAE, 0xF0});
    hidden("invpcid", (machine.seven.ebx & bit(10)) != 0, {0x66, 0x0F, 0x38, 0x82, 0x08});
    hidden("xbegin", (machine.seven.ebx & bit(11)) != 0, {0xC7, 0xF8, 0, 0, 0, 0});
    hidden("xtest", (machine.seven.ebx & bit(11)) != 0, {0x0F, 0x01, 0xD6});
    hidden("xend", (machine.seven.ebx & bit(11)) != 0, {0x0F, 0x01, 0xD5});
    hidden("clac", (machine.seven.ebx & bit(20)) != 0, {0x0F, 0x01, 0xCA});
    hidden("stac", (machine.seven.ebx & bit(20)) != 0, {0x0F, 0x01, 0xCB});
    hidden("rdpkru", false, {0x0F, 0x01, 0xEE});  // CR4.PKE is clear
    hidden("wrpkru", false, {0x0F, 0x01, 0xEF});
    hidden("rdpru", (machine.extended8.ebx & bit(4)) != 0, {0x0F, 0x01, 0xFD});
    hidden("rdfsbase", false, {0xF3, 0x0F, 0xAE, 0xC0});  // CR4.FSGSBASE is clear
    hidden("wrgsbase", false, {0xF3, 0x0F, 0xAE, 0xD8});
    hidden("xsave", false, {0x0F, 0xAE, 0x20});  // CR4.OSXSAVE is clear
    hidden("xsaves", false, {0x0F, 0xC7, 0x28});
    hidden("xrstors", false, {0x0F, 0xC7, 0x18});
    hidden("enqcmd", (machine.seven.ecx & bit(29)) != 0, {0xF2, 0x0F, 0x38, 0xF8, 0x00});
    hidden("movdir64b", (machine.seven.ecx & bit(28)) != 0, {0x66, 0x0F, 0x38, 0xF8, 0x00});
    hidden("movdiri", (machine.seven.ecx & bit(27)) != 0, {0x0F, 0x38, 0xF9, 0x08});
    hidden("serialize", (machine.seven.edx & bit(14)) != 0, {0x0F, 0x01, 0xE8});
    hidden("xsusldtrk", (machine.seven.edx & bit(16)) != 0, {0xF2, 0x0F, 0x01, 0xE8});
    hidden("hreset", false, {0xF3, 0x0F, 0x3A, 0xF0, 0xC0, 0x00});
    hidden("ldtilecfg", (machine.seven.edx & bit(24)) != 0, {0xC4, 0xE2, 0x78, 0x49, 0x00});
    hidden("vex-without-osxsave", false, {0xC5, 0xF8, 0x77});
    hidden("evex-without-osxsave", false, {0x62, 0xF1, 0x7C, 0x48, 0x10, 0x00});
}

// The LOCK prefix, lengths, prefixes where they do not belong.
void encodings() {
    constexpr Named not_lockable[] = {
        {"nop", {0xF0, 0x90}},
        {"mov", {0xF0, 0x89, 0x18}},
        {"mov.load", {0xF0, 0x8B, 0x18}},
        {"cmp", {0xF0, 0x39, 0x18}},
        {"test", {0xF0, 0x85, 0x18}},
        {"add.register", {0xF0, 0x01, 0xD8}},
        {"add.load", {0xF0, 0x03, 0x18}},
        {"inc.register", {0xF0, 0xFF, 0xC0}},
        {"xchg.register", {0xF0, 0x87, 0xD8}},
        {"cmpxchg.register", {0xF0, 0x0F, 0xB1, 0xD8}},
        {"bt", {0xF0, 0x0F, 0xA3, 0x18}},
        {"bt.immediate", {0xF0, 0x0F, 0xBA, 0x20, 0x01}},
        {"push", {0xF0, 0x50}},
        {"movs", {0xF0, 0xA4}},
        {"stos", {0xF0, 0xAA}},
        {"cpuid", {0xF0, 0x0F, 0xA2}},
        {"rdmsr", {0xF0, 0x0F, 0x32}},
        {"wrmsr", {0xF0, 0x0F, 0x30}},
        {"rdtsc", {0xF0, 0x0F, 0x31}},
        {"hlt", {0xF0, 0xF4}},
        {"in", {0xF0, 0xE4, 0x80}},
        {"out", {0xF0, 0xE6, 0x80}},
        {"ins", {0xF0, 0x6C}},
        {"outs", {0xF0, 0x6E}},
        {"int3", {0xF0, 0xCC}},
        {"iret", {0xF0, 0xCF}},
        {"lgdt", {0xF0, 0x0F, 0x01, 0x10}},
        {"xgetbv", {0xF0, 0x0F, 0x01, 0xD0}},
        {"vmcall", {0xF0, 0x0F, 0x01, 0xC1}},
        {"clts", {0xF0, 0x0F, 0x06}},
        {"invlpg", {0xF0, 0x0F, 0x01, 0x38}},
        {"pause", {0xF0, 0xF3, 0x90}},
        {"shl", {0xF0, 0xD1, 0x20}},
        {"movnti", {0xF0, 0x0F, 0xC3, 0x18}},
        {"jmp", {0xF0, 0xEB, 0x00}},
    };
    for (const Named& each : not_lockable)
        faults("C34", Text() << "lock." << each.name, each.code, undefined, with(rax, data_at));
    constexpr Named lockable[] = {
        {"add", {0xF0, 0x01, 0x18}},           {"xchg", {0xF0, 0x87, 0x18}},
        {"inc", {0xF0, 0xFF, 0x00}},           {"not", {0xF0, 0xF7, 0x10}},
        {"bts", {0xF0, 0x0F, 0xBA, 0x28, 1}},  {"xadd", {0xF0, 0x0F, 0xC1, 0x18}},
        {"cmpxchg", {0xF0, 0x0F, 0xB1, 0x18}}, {"cmpxchg8b", {0xF0, 0x0F, 0xC7, 0x08}},
    };
    for (const Named& each : lockable)
        runs("C34", Text() << "lock." << each.name, each.code, with(rax, data_at));

    // Fifteen bytes are an instruction, sixteen are not: of those that exit and of those that do not.
    constexpr Named bodies[] = {{"nop", {0x90}},          {"cpuid", {0x0F, 0xA2}},
                                {"in", {0xE4, 0x80}},     {"rdtsc", {0x0F, 0x31}},
                                {"mov", {0x8B, 0x18}},    {"clts", {0x0F, 0x06}},
                                {"wbinvd", {0x0F, 0x09}}, {"mov-dr", {0x0F, 0x21, 0xF8}}};
    for (const Named& each : bodies) {
        for (const u8 prefix : {u8{0x2E}, u8{0x66}, u8{0x65}}) {
            if (prefix == 0x66 && each.name[0] == 'm') continue;
            Code code;
            while (code.size + each.code.size < 15) code.bytes[code.size++] = prefix;
            const Entry in = with(rax, data_at, rcx, 0);
            runs("C34", Text() << "length.15." << each.name << '.' << Hex{prefix}, code + each.code, in);
            faults("C34", Text() << "length.16." << each.name << '.' << Hex{prefix},
                   Code{prefix} + code + each.code, general_protection, in);
        }
    }
    // REX must stand last: one before another prefix does nothing.
    const Outcome& o = run({0x48, 0x66, 0xB8, 0x34, 0x12}, Mode::long0, with(rax, ~u64{0}));
    check_equal("C34", "rex.stray", o.gpr[rax], 0xFFFFFFFFFFFF1234);
    runs("C34", "rex.before-exit", {0x48, 0x2E, 0x0F, 0xA2}, with(rax, 0));
    faults("C34", "vex.after-lock", {0xF0, 0xC5, 0xF8, 0x77}, undefined, pattern());
    faults("C34", "vex.after-66", {0x66, 0xC5, 0xF8, 0x77}, undefined, pattern());
    faults("C34", "vex.after-rex", {0x48, 0xC5, 0xF8, 0x77}, undefined, pattern());
    faults("C34", "cmpxchg8b.66.register", {0x66, 0x0F, 0xC7, 0xC8}, undefined, pattern());
}

// TS and EM, for what the emulator does and what it does not.
void lazy_state() {
    const u64 cr0 = read_cr0();
    constexpr Named users[] = {{"fld1", {0xD9, 0xE8}},
                               {"fld.mem", {0xD9, 0x00}},
                               {"movaps", {0x0F, 0x28, 0xC1}},
                               {"movups.mem", {0x0F, 0x10, 0x00}},
                               {"movdqu.mem", {0xF3, 0x0F, 0x6F, 0x00}},
                               {"movq.mmx", {0x0F, 0x6F, 0x00}},
                               {"emms", {0x0F, 0x77}}};
    for (const Named& each : users) {
        const bool x87 = each.code.bytes[0] == 0xD9;
        write_cr0(cr0 | bit(3));
        faults("C39", Text() << "ts." << each.name, each.code, not_available, with(rax, data_at));
        write_cr0((cr0 | bit(2)) & ~bit(1));
        faults("C39", Text() << "em." << each.name, each.code, x87 ? not_available : undefined,
               with(rax, data_at));
        write_cr0(cr0);
    }
    // The same on device memory, which the emulator would have to touch.
    map_page(device_at, 0xB8000, page_present | page_writable | page_user);
    for (const Named& each : users) {
        if (each.code.bytes[each.code.size - 1] != 0) continue;
        const bool x87 = each.code.bytes[0] == 0xD9;
        write_cr0(cr0 | bit(3));
        faults("C39", Text() << "ts.device." << each.name, each.code, not_available, with(rax, device_at));
        write_cr0((cr0 | bit(2)) & ~bit(1));
        faults("C39", Text() << "em.device." << each.name, each.code, x87 ? not_available : undefined,
               with(rax, device_at));
        write_cr0(cr0);
    }
    const u64 cr4 = read_cr4();
    write_cr4(cr4 & ~bit(9));
    faults("C39", "osfxsr.movups", {0x0F, 0x10, 0x00}, undefined, with(rax, data_at));
    faults("C39", "osfxsr.movups.device", {0x0F, 0x10, 0x00}, undefined, with(rax, device_at));
    write_cr4(cr4);
}

}  // namespace

void probe_instructions() {
    virtualisation();
    hypercalls();
    caches();
    hidden_features();
    encodings();
    lazy_state();
}
