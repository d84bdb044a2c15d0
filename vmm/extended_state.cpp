#include "vmm/extended_state.hpp"

#include <cstring>

namespace bulkhead {
namespace {

constexpr u64 dr6_after_reset = 0xFFFF0FF0;

}  // namespace

// x87 and SSE control words as after RESET (Intel SDM Vol. 3A, table 9-1) in the legacy area; with an empty
// XSTATE_BV XRSTOR itself initialises every other component.
void ExtendedState::initialize_area() {
    std::memset(area_, 0, area_size);
    constexpr u16 control_word = 0x0040;
    constexpr u8 tag_word_abridged = 0xFF;  // every register holds a valid zero
    constexpr u32 mxcsr = 0x1F80;
    std::memcpy(area_ + 0, &control_word, sizeof control_word);
    std::memcpy(area_ + 4, &tag_word_abridged, sizeof tag_word_abridged);
    std::memcpy(area_ + 24, &mxcsr, sizeof mxcsr);
    if (supported_ != 0) {
        // x87 from the area, since its initial state by XRSTOR would be that of FNINIT, not of RESET.
        constexpr u64 x87 = 1;
        std::memcpy(area_ + 512, &x87, sizeof x87);
    }
}

void ExtendedState::reset() {
    const bool was_loaded = loaded_;
    initialize_area();
    xcr0_ = 1;
    tsc_aux_ = 0;
    for (u64& value : debug_) value = 0;
    dr6_ = dr6_after_reset;
    loaded_ = false;
    if (was_loaded) load();
}

void ExtendedState::load() {
    if (loaded_) return;
    loaded_ = true;
    if (supported_ != 0) {
        bulkhead_write_xcr0(supported_);
        bulkhead_xrstor(area_, supported_);
        bulkhead_write_xcr0(xcr0_);
    } else {
        bulkhead_fxrstor(area_);
    }
    for (u32 i = 0; i < 4; ++i) bulkhead_write_debug(i, debug_[i]);
    bulkhead_write_debug(6, dr6_);
    if (has_tsc_aux_) bulkhead_write_tsc_aux(tsc_aux_);
}

void ExtendedState::save() {
    if (!loaded_) return;
    xcr0_ = xcr0();
    loaded_ = false;
    if (supported_ != 0) {
        bulkhead_write_xcr0(supported_);
        bulkhead_xsave(area_, supported_);
    } else {
        bulkhead_fxsave(area_);
    }
    for (u32 i = 0; i < 4; ++i) debug_[i] = bulkhead_read_debug(i);
    dr6_ = bulkhead_read_debug(6);
}

void ExtendedState::set_xcr0(u64 value) {
    xcr0_ = value;
    if (loaded_ && supported_ != 0) bulkhead_write_xcr0(value);
}

void ExtendedState::set_tsc_aux(u64 value) {
    tsc_aux_ = value;
    if (loaded_ && has_tsc_aux_) bulkhead_write_tsc_aux(value);
}

u64 ExtendedState::debug_register(unsigned index) const {
    if (loaded_) return bulkhead_read_debug(index);
    return index == 6 ? dr6_ : debug_[index & 3];
}

void ExtendedState::set_debug_register(unsigned index, u64 value) {
    if (loaded_) bulkhead_write_debug(index, value);
    (index == 6 ? dr6_ : debug_[index & 3]) = value;
}

}  // namespace bulkhead
