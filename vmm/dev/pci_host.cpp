#include "vmm/dev/pci_host.hpp"

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace {

constexpr u64 data_window = 4;
constexpr u64 end = 8;
constexpr u32 address_enable = u32{1} << 31;
constexpr u32 address_kept = 0x80FF'FFFC;  // the others are reserved and read as zero

}  // namespace

Result<> PciHost::attach(unsigned device, unsigned function, PciFunction& what) {
    if (device >= 32 || function >= 8) return fail("PCI has no place 00:{:02x}.{}", device, function);
    const u8 number = static_cast<u8>(device << 3 | function);
    for (const Place& place : places_) {
        if (place.number == number) return fail("PCI 00:{:02x}.{} is taken", device, function);
    }
    if (!places_.push_back({number, &what})) return fail("PCI bus 0 is full, {} functions", places_.size());
    return {};
}

void PciHost::reset() {
    address_ = 0;
    for (const Place& place : places_) place.function->config_reset();
}

PciFunction* PciHost::selected() const {
    if ((address_ & address_enable) == 0 || extract(address_, 23, 16) != 0) return nullptr;
    const u8 number = static_cast<u8>(address_ >> 8);
    for (const Place& place : places_) {
        if (place.number == number) return place.function;
    }
    return nullptr;
}

u64 PciHost::read(u64 offset, unsigned size) {
    if (offset == 0 && size == 4) return address_;
    if (offset >= data_window && size <= 4 && offset + size <= end) {
        PciFunction* function = selected();
        const u8 at = static_cast<u8>((address_ & 0xFC) | (offset - data_window));
        return function != nullptr ? function->config_read(at, size) & all_ones(size) : all_ones(size);
    }
    if (offset + size <= data_window) return beneath_.read(offset, size);
    // Across the two registers, or past them: byte by byte.
    u64 value = 0;
    for (unsigned i = 0; i < size; ++i) {
        const u64 byte = offset + i < end && size > 1 ? read(offset + i, 1) : 0xFF;
        value |= (byte & 0xFF) << (8 * i);
    }
    return value;
}

void PciHost::write(u64 offset, unsigned size, u64 value) {
    if (offset == 0 && size == 4) {
        address_ = static_cast<u32>(value) & address_kept;
        return;
    }
    if (offset >= data_window && size <= 4 && offset + size <= end) {
        PciFunction* function = selected();
        if (function == nullptr) return;
        const u8 at = static_cast<u8>((address_ & 0xFC) | (offset - data_window));
        function->config_write(at, size, static_cast<u32>(value & all_ones(size)));
        return;
    }
    if (offset + size <= data_window) {
        beneath_.write(offset, size, value);
        return;
    }
    for (unsigned i = 0; i < size && size > 1; ++i) {
        if (offset + i < end) write(offset + i, 1, (value >> (8 * i)) & 0xFF);
    }
}

}  // namespace bulkhead
