#include "tests/guests/inmate/probe.hpp"

Machine machine;

namespace {

u64 passed, failed, skipped;

// For each probe, with quiet=1: cases that pass are not printed one by one.
struct Count {
    const char* id = nullptr;
    u64 verdicts[3] = {};  // passed, failed, skipped
};
Count counts[80];

void count(const char* id, unsigned verdict) {
    for (Count& each : counts) {
        if (each.id == nullptr) each.id = id;
        const char *a = each.id, *b = id;
        while (*a != 0 && *a == *b) ++a, ++b;
        if (*a != *b) continue;
        ++each.verdicts[verdict];
        return;
    }
}

void line(const char* id, const Text& name, const char* verdict, const char* why) {
    Text text;
    text << "PROBE " << id << ' ' << name.c_str() << ' ' << verdict;
    if (*why != 0) text << ' ' << why;
    text << "\r\n";
    print(text);
}

}  // namespace

void pass(const char* id, const Text& name) {
    ++passed;
    count(id, 0);
    if (!is_option("quiet", "1")) line(id, name, "PASS", "");
}

void fail(const char* id, const Text& name, const Text& why) {
    ++failed;
    count(id, 1);
    line(id, name, "FAIL", why.c_str());
}

void skip(const char* id, const Text& name, const char* why) {
    ++skipped;
    count(id, 2);
    line(id, name, "SKIP", why);
}

bool avoided(const char* id, const Text& name) {
    const char* list = option("avoid");
    while (list != nullptr && *list != 0 && *list != ' ') {
        const char* of = name.c_str();
        while (*list != ',' && *list != 0 && *list != ' ' && *list == *of) ++list, ++of;
        if (*list == ',' || *list == 0 || *list == ' ') {
            skip(id, name, "avoided");
            return true;
        }
        while (*list != ',' && *list != 0 && *list != ' ') ++list;
        if (*list == ',') ++list;
    }
    return false;
}

bool check(const char* id, const Text& name, bool holds, const Text& otherwise) {
    if (holds) {
        pass(id, name);
    } else {
        fail(id, name, otherwise);
    }
    return holds;
}

bool check_equal(const char* id, const Text& name, u64 is, u64 wanted) {
    return check(id, name, is == wanted, Text() << "is " << Hex{is} << ", not " << Hex{wanted});
}

void print_totals() {
    for (const Count& each : counts) {
        if (each.id == nullptr) break;
        print(Text() << "COUNT " << each.id << ' ' << each.verdicts[0] << ' ' << each.verdicts[1] << ' '
                     << each.verdicts[2] << "\r\n");
    }
    print(Text() << "INMATE " << passed + failed + skipped << ' ' << passed << ' ' << failed << ' ' << skipped
                 << "\r\n");
}

void learn_machine() {
    const CpuidResult zero = cpuid(0);
    machine.intel = zero.ebx == 0x756E6547;
    machine.amd = zero.ebx == 0x68747541;
    machine.one = cpuid(1);
    if (zero.eax >= 7) machine.seven = cpuid(7);
    machine.extended = cpuid(0x80000001);
    if (cpuid(0x80000000).eax >= 0x80000008) {
        machine.extended8 = cpuid(0x80000008);
        machine.physical_bits = machine.extended8.eax & 0xFF;
    }
    if ((machine.one.ecx & bit(26)) != 0) {
        const CpuidResult state = cpuid(0xD);
        machine.xcr0 = state.eax | u64{state.edx} << 32;
    }
    machine.tsc_per_us = ticks_per_microsecond();
}

Entry pattern() {
    Entry in;
    for (unsigned i = 0; i < 16; ++i)
        if (i != rsp) in.gpr[i] = 0x1357902468ACE000 + 0x1111111111111111 * i;
    return in;
}

Entry with(unsigned name, u64 value) {
    Entry in = pattern();
    in.gpr[name] = value;
    return in;
}

Entry with(unsigned a, u64 value_a, unsigned b, u64 value_b) {
    Entry in = with(a, value_a);
    in.gpr[b] = value_b;
    return in;
}

Entry with_msr(u32 index, u64 value) {
    Entry in = with(rcx, index, rax, value & 0xFFFFFFFF);
    in.gpr[rdx] = value >> 32;
    return in;
}

bool faults(const char* id, const Text& name, const Code& code, Fault wanted, const Entry& in, Mode mode,
            usize offset) {
    if (avoided(id, name)) return false;
    const Outcome& o = run(code, mode, in);
    const u64 at = begin_of(mode) + offset;
    Text why;
    if (o.vector == 3 && o.rip == begin_of(mode) + code.size + 1) {
        why << "completed";
    } else if (o.vector != wanted.vector || o.error != wanted.error) {
        why << "vector " << o.vector << " error " << Hex{o.error};
        if (o.vector == 14) why << " cr2 " << Hex{o.cr2};
    } else if (o.rip != at) {
        why << "RIP " << Hex{o.rip} << ", not " << Hex{at};
    } else if (((o.rflags ^ in.rflags) & 0xEFFFD) != 0) {
        why << "RFLAGS " << Hex{o.rflags};
    } else if (offset == 0) {
        const bool wide = mode == Mode::long0 || mode == Mode::long3;
        for (unsigned i = 0; i < 16; ++i) {
            if (i == rsp && in.gpr[rsp] == 0) continue;
            // Outside 64-bit mode the upper halves and R8 to R15 are undefined after a change of mode.
            if (!wide && (i >= 8 || ((o.gpr[i] ^ in.gpr[i]) & 0xFFFFFFFF) == 0)) continue;
            if (o.gpr[i] != in.gpr[i]) why << "register " << i << " is " << Hex{o.gpr[i]} << ' ';
        }
    }
    return check(id, name, why.empty(), why);
}

bool runs(const char* id, const Text& name, const Code& code, const Entry& in, Mode mode) {
    if (avoided(id, name)) return false;
    const Outcome& o = run(code, mode, in);
    const bool done = o.vector == 3 && o.rip == begin_of(mode) + code.size + 1;
    return check(id, name, done,
                 Text() << "vector " << o.vector << " error " << Hex{o.error} << " at "
                        << Hex{o.rip - begin_of(mode)} << " cr2 " << Hex{o.cr2});
}
