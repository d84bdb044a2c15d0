#include "vmm/inspection.hpp"

#include <algorithm>

#include "arch/x86/regs/control.hpp"
#include "vmm/decode/page_walk.hpp"

namespace bulkhead {
namespace {

// Guest memory for a walk that leaves no trace: entries outside RAM keep their flags, and so do these.
class TracelessMemory final : public PagingMemory {
  public:
    explicit TracelessMemory(const GuestMemory& memory) : memory_(memory) {}

    bool read_physical(GuestPhysical address, unsigned size, u64& value) override {
        u8 bytes[8] = {};
        if (size > sizeof bytes || !memory_.read(address, MutableBytes(bytes, size))) return false;
        value = 0;
        for (unsigned i = 0; i < size; ++i) value |= static_cast<u64>(bytes[i]) << (8 * i);
        return true;
    }
    ExchangeResult compare_exchange(GuestPhysical, unsigned, u64&, u64) override {
        return ExchangeResult::not_ram;
    }

  private:
    const GuestMemory& memory_;
};

// A supervisor's read, as far as paging forbids none: a page that only the user may see counts too.
PagingState paging_of(const Vcpu& vcpu) {
    const VcpuBackend& backend = vcpu.backend();
    return {.cr0 = backend.read(Register::cr0),
            .cr3 = backend.read(Register::cr3),
            .cr4 = backend.read(Register::cr4),
            .efer = backend.read(Register::efer),
            .ac = true,
            .physical_bits = vcpu.cpuid_policy().physical_bits()};
}

}  // namespace

void read_registers(const Vcpu& vcpu, VcpuRegisters& out) {
    const VcpuBackend& backend = vcpu.backend();
    for (unsigned i = 0; i < 16; ++i) out.gprs[i] = backend.gprs[i];
    out.rip = backend.read(Register::rip);
    out.rflags = backend.read(Register::rflags);
    out.cr0 = backend.read(Register::cr0);
    out.cr2 = backend.read(Register::cr2);
    out.cr3 = backend.read(Register::cr3);
    out.cr4 = backend.read(Register::cr4);
    out.cr8 = backend.cr8();
    out.efer = backend.read(Register::efer);
    out.xcr0 = backend.xcr0();
    for (unsigned i = 0; i < 4; ++i) out.debug[i] = backend.debug_register(i);
    out.dr6 = backend.debug_register(6);
    out.dr7 = backend.read(Register::dr7);
    for (unsigned i = 0; i < 8; ++i) out.segments[i] = backend.segment(static_cast<SegmentName>(i));
    out.gdtr = backend.gdtr();
    out.idtr = backend.idtr();
    out.last_exit = name_of(vcpu.last_exit());
    out.last_code = vcpu.last_code();
}

Result<usize> read_guest_memory(const GuestMemory& memory, const Vcpu& vcpu, Management::AddressKind kind,
                                u64 address, MutableBytes out) {
    const bool linear = kind == Management::AddressKind::linear;
    const PagingState paging = paging_of(vcpu);
    const bool long_mode = (paging.efer & efer::lma) != 0;
    const u8 linear_bits = (paging.cr4 & cr4::la57) != 0 ? 57 : 48;
    TracelessMemory traceless(memory);
    usize done = 0;
    while (done < out.size()) {
        const u64 at = address + done;
        const auto enough = [&](std::string_view why) -> Result<usize> {
            if (done != 0) return done;
            return fail("{:#x} {}", address, why);
        };
        if (at < address) break;
        GuestPhysical physical(at);
        if (linear) {
            if (!long_mode && at > 0xFFFF'FFFF)
                return enough("is beyond 4 GiB, and the vCPU not in long mode");
            if (long_mode && !is_canonical(at, linear_bits)) return enough("is not canonical");
            const WalkResult walk = walk_pages(traceless, paging, GuestVirtual(at), {});
            if (walk.status != WalkResult::Status::ok)
                return enough("is not mapped by the vCPU's page tables");
            physical = walk.address;
        }
        const usize here = std::min<usize>(out.size() - done, static_cast<usize>(page_size - at % page_size));
        if (!memory.read(physical, out.subspan(done, here))) {
            if (done != 0) return done;
            if (linear) return fail("{:#x} is {:#x} in the VM, which is not RAM", address, physical.raw());
            return fail("{:#x} is not RAM", address);
        }
        done += here;
    }
    return done;
}

}  // namespace bulkhead
