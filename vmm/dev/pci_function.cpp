#include "vmm/dev/pci_function.hpp"

namespace bulkhead {

// Offsets past the end wrap within the space: an u8 cannot leave it.

void PciConfigSpace::define(u8 offset, unsigned size, u32 value, u32 writable) {
    for (unsigned i = 0; i < size; ++i) {
        const u8 at = static_cast<u8>(offset + i);
        initial_[at] = value_[at] = static_cast<u8>(value >> (8 * i));
        writable_[at] = static_cast<u8>(writable >> (8 * i));
    }
}

void PciConfigSpace::define_write_1_to_clear(u8 offset, unsigned size, u32 bits) {
    for (unsigned i = 0; i < size; ++i) {
        write_1_to_clear_[static_cast<u8>(offset + i)] = static_cast<u8>(bits >> (8 * i));
    }
}

void PciConfigSpace::reset() {
    for (unsigned i = 0; i < length; ++i) value_[i] = initial_[i];
}

u32 PciConfigSpace::read(u8 offset, unsigned size) const {
    u32 value = 0;
    for (unsigned i = 0; i < size && i < 4; ++i) {
        value |= static_cast<u32>(value_[static_cast<u8>(offset + i)]) << (8 * i);
    }
    return value;
}

void PciConfigSpace::write(u8 offset, unsigned size, u32 value) {
    for (unsigned i = 0; i < size && i < 4; ++i) {
        const u8 at = static_cast<u8>(offset + i);
        const u8 byte = static_cast<u8>(value >> (8 * i));
        const u8 kept = value_[at] & static_cast<u8>(~writable_[at]);
        value_[at] = (kept & static_cast<u8>(~(byte & write_1_to_clear_[at]))) | (byte & writable_[at]);
    }
}

void PciConfigSpace::set(u8 offset, unsigned size, u32 value) {
    for (unsigned i = 0; i < size && i < 4; ++i) {
        value_[static_cast<u8>(offset + i)] = static_cast<u8>(value >> (8 * i));
    }
}

}  // namespace bulkhead
