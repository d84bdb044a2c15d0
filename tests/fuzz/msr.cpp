// RDMSR and WRMSR with any index and value: no register ends up with what hardware would refuse to load.
#include "tests/fakes/fake_clock.hpp"
#include "tests/fuzz/device.hpp"
#include "tests/fuzz/policies.hpp"
#include "tests/unit/vmm/dev/apic_bench.hpp"
#include "vmm/control_registers.hpp"
#include "vmm/msr_policy.hpp"

using namespace bulkhead;

namespace {

u32 index(fuzz::Input& in) {
    const u8 kind = in.byte();
    switch (kind >> 6) {
        case 0: return in.value<u16>() % 0x480;
        case 1: return 0x800 + in.byte();
        case 2: return 0xC0000080 + in.byte() % 0x90U;
        default: return (kind & 1) != 0 ? 0xC0010000 + (in.value<u16>() % 0x2000) : in.value<u32>();
    }
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    static CpuidPolicy policy;
    const fuzz::Machine machine(in);
    if (!policy.build(machine, fuzz::make_parameters(in))) return;

    RegisterBackend backend;
    ApicBench bench({.id = 0,
                     .bootstrap = true,
                     .x2apic = policy.x2apic(),
                     .tsc_deadline = policy.tsc_deadline(),
                     .physical_bits = policy.physical_bits()});
    bench.apic.reset();
    MsrState state;
    state.debugctl_mask = in.flag() ? 1 : 0;
    state.reset();
    backend.write(Register::cr0, in.flag() ? cr0::pe | cr0::pg : 0);
    MsrContext context{
        .backend = backend, .apic = bench.apic, .cpuid = policy, .clock = bench.clock, .state = state};
    while (!in.empty()) {
        const MsrIndex which(index(in));
        const u8 how = in.byte();
        bench.clock.advance(how);
        if ((how & 1) != 0) {
            const u64 value = in.number() ^ ((how & 2) != 0 ? read_msr(which, context).value_or(0) : 0);
            const u64 efer = backend.read(Register::efer);
            const auto before = read_msr(which, context);
            if (const auto written = write_msr(which, value, context); !written) {
                MUST(written.error() == make_general_protection());
                MUST(backend.read(Register::efer) == efer);
                // A refused write changes nothing, but time goes on in counters only by the clock.
                if (before) MUST(read_msr(which, context).value_or(~*before) == *before);
            }
        } else if (const auto value = read_msr(which, context); !value) {
            MUST(value.error() == make_general_protection());
        }
        for (const Register base :
             {Register::fs_base, Register::gs_base, Register::kernel_gs_base, Register::lstar,
              Register::cstar, Register::sysenter_esp, Register::sysenter_eip}) {
            MUST(is_canonical(backend.read(base), policy.linear_bits()));
        }
        MUST((backend.read(Register::efer) & ~(policy.efer_mask() | efer::lma)) == 0);
        for (unsigned i = 0; i < 8; ++i) {
            const u64 type = backend.read(Register::pat) >> (8 * i) & 0xFF;
            MUST(type <= 7 && type != 2 && type != 3);
        }
        MUST((backend.read(Register::debugctl) & ~state.debugctl_mask) == 0);
        MUST(backend.read(Register::tsc_aux) >> 32 == 0 && backend.read(Register::sysenter_cs) >> 32 == 0);
        MUST((bench.apic.base() & ~low_mask(policy.physical_bits())) == 0);
        MUST(bench.apic.mode() != ApicMode::x2apic || policy.x2apic());
        MUST(backend.tsc_offset == state.host_tsc_offset + state.tsc_adjust);
        fuzz::serve(bench.apic, bench.clock);
        bench.bus.messages.clear();
        bench.bus.ended.clear();
    }
}
