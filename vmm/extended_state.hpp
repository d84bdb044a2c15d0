// The state of a virtual processor that neither VM entry nor VM exit switches on either vendor's hardware:
// x87 to AVX-512 registers with XCR0, debug registers, TSC_AUX. The hypervisor itself never touches any of
// it, so it stays in the processor from exit to entry and moves only when a core goes from one vCPU to
// another.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

// The instructions behind it: assembly in the image, a fake in the host tests.
extern "C" {
void bulkhead_write_xcr0(u64 value);
u64 bulkhead_read_xcr0();
// area: 64-byte aligned, standard format, large enough for every component in `mask`.
void bulkhead_xsave(void* area, u64 mask);
void bulkhead_xrstor(const void* area, u64 mask);
// area: 16-byte aligned, 512 bytes.
void bulkhead_fxsave(void* area);
void bulkhead_fxrstor(const void* area);
// index: 0..3 or 6.
u64 bulkhead_read_debug(u32 index);
void bulkhead_write_debug(u32 index, u64 value);
void bulkhead_write_tsc_aux(u64 value);
}

class ExtendedState {
  public:
    static constexpr usize area_size = 4096;

    // `area`: area_size bytes, page-aligned. `supported`: the XCR0 components the guest may enable; 0: the
    // processor has no XSAVE, and FXSAVE serves. `has_tsc_aux`: it has RDTSCP or RDPID.
    ExtendedState(u8* area, u64 supported, bool has_tsc_aux)
        : area_(area), supported_(supported), has_tsc_aux_(has_tsc_aux) {}

    // The processor's state after RESET. Not to be called while loaded on a core that is to keep other state.
    void reset();

    // To and from this core's registers.
    void load();
    void save();
    [[nodiscard]] bool loaded() const { return loaded_; }

    // Read from the processor while loaded: not every emulation of AMD-V lets XSETBV be intercepted.
    [[nodiscard]] u64 xcr0() const { return loaded_ && supported_ != 0 ? bulkhead_read_xcr0() : xcr0_; }
    // Takes effect at once while loaded. Vetted by the caller.
    void set_xcr0(u64 value);

    // index: 0..3 or 6.
    [[nodiscard]] u64 debug_register(unsigned index) const;
    void set_debug_register(unsigned index, u64 value);

    [[nodiscard]] u64 tsc_aux() const { return tsc_aux_; }
    void set_tsc_aux(u64 value);

  private:
    void initialize_area();

    u8* area_;
    u64 supported_;
    bool has_tsc_aux_;
    u64 xcr0_ = 1;
    u64 tsc_aux_ = 0;
    u64 debug_[4] = {};
    u64 dr6_ = 0;
    bool loaded_ = false;
};

}  // namespace bulkhead
