#include "arch/x86/cpu/memory_types.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"
#include "kernel/base/bits.hpp"

namespace bulkhead {
namespace {

constexpr u32 max_variable = 32;
constexpr u32 fixed_registers[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26A,
                                   0x26B, 0x26C, 0x26D, 0x26E, 0x26F};
constexpr u64 def_type_enable = bit(11);

struct MemoryTypes {
    bool present = false;
    u32 variable_count = 0;
    bool has_fixed = false;
    u64 def_type = 0;
    u64 fixed[11] = {};
    u64 variable[2 * max_variable] = {};
};
MemoryTypes recorded;

[[nodiscard]] MsrIndex variable_register(u32 index) {
    return MsrIndex(msr::mtrr_physbase0.raw() + index);
}

[[nodiscard]] bool as_recorded() {
    if (cpu::read_msr(msr::mtrr_def_type) != recorded.def_type) return false;
    for (u32 i = 0; recorded.has_fixed && i < 11; ++i) {
        if (cpu::read_msr(MsrIndex(fixed_registers[i])) != recorded.fixed[i]) return false;
    }
    for (u32 i = 0; i < 2 * recorded.variable_count; ++i) {
        if (cpu::read_msr(variable_register(i)) != recorded.variable[i]) return false;
    }
    return true;
}

void flush_translations() {
    const u64 value = cpu::read_cr4();
    cpu::write_cr4(value & ~cr4::pge);
    cpu::write_cr3(cpu::read_cr3());
    cpu::write_cr4(value);
}

}  // namespace

void record_memory_types() {
    if ((cpu::cpuid(1).edx & cpuid::leaf1_edx::mtrr) == 0) return;
    const u64 capabilities = cpu::read_msr(msr::mtrr_cap);
    recorded.present = true;
    recorded.variable_count = static_cast<u32>(extract(capabilities, 7, 0));
    if (recorded.variable_count > max_variable) recorded.variable_count = max_variable;
    recorded.has_fixed = has_bit(capabilities, 8);
    recorded.def_type = cpu::read_msr(msr::mtrr_def_type);
    for (u32 i = 0; recorded.has_fixed && i < 11; ++i)
        recorded.fixed[i] = cpu::read_msr(MsrIndex(fixed_registers[i]));
    for (u32 i = 0; i < 2 * recorded.variable_count; ++i)
        recorded.variable[i] = cpu::read_msr(variable_register(i));
}

// The order is the manual's (Intel SDM Vol. 3A, 12.11.8): caches off and empty, translations dropped, MTRRs
// off, written, on again. Interrupts are disabled.
bool adopt_memory_types() {
    if (!recorded.present || as_recorded()) return false;
    const u64 control = cpu::read_cr0();
    cpu::write_cr0((control | cr0::cd) & ~cr0::nw);
    cpu::write_back_caches();
    flush_translations();
    cpu::write_msr(msr::mtrr_def_type, recorded.def_type & ~def_type_enable);
    for (u32 i = 0; recorded.has_fixed && i < 11; ++i)
        cpu::write_msr(MsrIndex(fixed_registers[i]), recorded.fixed[i]);
    for (u32 i = 0; i < 2 * recorded.variable_count; ++i)
        cpu::write_msr(variable_register(i), recorded.variable[i]);
    cpu::write_msr(msr::mtrr_def_type, recorded.def_type);
    cpu::write_back_caches();
    flush_translations();
    cpu::write_cr0(control);
    return true;
}

}  // namespace bulkhead
