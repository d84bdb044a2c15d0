#include "vmm/vcpu_context.hpp"

#include <algorithm>
#include <cstring>

#include "vmm/virtual_machine.hpp"

namespace bulkhead {
namespace {

template <class T>
ExchangeResult exchange(u8* at, u64& expected, u64 desired) {
    T old = static_cast<T>(expected);
    if (__atomic_compare_exchange_n(reinterpret_cast<T*>(at), &old, static_cast<T>(desired), false,
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        return ExchangeResult::exchanged;
    }
    expected = old;
    return ExchangeResult::changed;
}

// One access, as the guest's instruction makes it: another processor never sees half of an aligned one.
u64 load(const u8* at, unsigned size) {
    u64 value = 0;
    if ((reinterpret_cast<u64>(at) & (size - 1)) != 0) {
        std::memcpy(&value, at, size);
        return value;
    }
    switch (size) {
        case 1: return *at;
        case 2: return __atomic_load_n(reinterpret_cast<const u16*>(at), __ATOMIC_RELAXED);
        case 4: return __atomic_load_n(reinterpret_cast<const u32*>(at), __ATOMIC_RELAXED);
        default: return __atomic_load_n(reinterpret_cast<const u64*>(at), __ATOMIC_RELAXED);
    }
}

void store(u8* at, unsigned size, u64 value) {
    if ((reinterpret_cast<u64>(at) & (size - 1)) != 0) {
        std::memcpy(at, &value, size);
        return;
    }
    switch (size) {
        case 1: *at = static_cast<u8>(value); break;
        case 2:
            __atomic_store_n(reinterpret_cast<u16*>(at), static_cast<u16>(value), __ATOMIC_RELAXED);
            break;
        case 4:
            __atomic_store_n(reinterpret_cast<u32*>(at), static_cast<u32>(value), __ATOMIC_RELAXED);
            break;
        default: __atomic_store_n(reinterpret_cast<u64*>(at), value, __ATOMIC_RELAXED); break;
    }
}

}  // namespace

bool VcpuContext::in_apic(GuestPhysical address) const {
    return apic_.mode() == ApicMode::xapic && address.align_down(page_size) == apic_.page_address();
}

// The local APIC's page wins over RAM, as it does where the processor itself answers.
bool VcpuContext::read_physical(GuestPhysical address, unsigned size, u64& value) {
    if (in_apic(address)) {
        apic_accessed_ = true;
        value = apic_.read(address.offset_in(page_size), size);
        return true;
    }
    if (const u8* ram = vm_.memory().at(address, size)) {
        value = load(ram, size);
        return true;
    }
    value = vm_.mmio_read(address.raw(), size, vcpu_);
    return true;
}

bool VcpuContext::write_physical(GuestPhysical address, unsigned size, u64 value) {
    if (in_apic(address)) {
        apic_accessed_ = true;
        apic_.write(address.offset_in(page_size), size, value);
        return true;
    }
    if (u8* ram = vm_.memory().at(address, size)) {
        if (vm_.memory().is_writable(address)) store(ram, size, value);
        return true;
    }
    vm_.mmio_write(address.raw(), size, value, vcpu_);
    return true;
}

ExchangeResult VcpuContext::compare_exchange(GuestPhysical address, unsigned size, u64& expected,
                                             u64 desired) {
    if (in_apic(address)) return ExchangeResult::not_ram;
    u8* ram = vm_.memory().at(address, size);
    if (ram == nullptr || !vm_.memory().is_writable(address)) return ExchangeResult::not_ram;
    switch (size) {
        case 1: return exchange<u8>(ram, expected, desired);
        case 2: return exchange<u16>(ram, expected, desired);
        case 4: return exchange<u32>(ram, expected, desired);
        default: return exchange<u64>(ram, expected, desired);
    }
}

bool VcpuContext::fetch_physical(GuestPhysical address, MutableBytes to) {
    return vm_.memory().read(address, to);
}

bool VcpuContext::read_ram(GuestPhysical address, MutableBytes to) {
    return !in_apic(address) && vm_.memory().read(address, to);
}

bool VcpuContext::write_ram(GuestPhysical address, Bytes from) {
    return !in_apic(address) && vm_.memory().is_writable(address) && vm_.memory().write(address, from);
}

u32 VcpuContext::port_read(Port port, unsigned size) {
    return vm_.port_read(port, size, vcpu_);
}

void VcpuContext::port_write(Port port, unsigned size, u32 value) {
    vm_.port_write(port, size, value, vcpu_);
}

// In pieces, so that other processors come to their chips in between.
void VcpuContext::port_read_string(Port port, unsigned size, MutableBytes bytes) {
    while (!bytes.empty()) {
        const usize count = std::min(bytes.size(), VirtualMachine::most_bytes_at_once);
        vm_.port_read_string(port, size, bytes.first(count), vcpu_);
        bytes = bytes.subspan(count);
    }
}

void VcpuContext::port_write_string(Port port, unsigned size, Bytes bytes) {
    while (!bytes.empty()) {
        const usize count = std::min(bytes.size(), VirtualMachine::most_bytes_at_once);
        vm_.port_write_string(port, size, bytes.first(count), vcpu_);
        bytes = bytes.subspan(count);
    }
}

bool VcpuContext::attention_pending() const {
    return vm_.stopped() || apic_.has_signal();
}

}  // namespace bulkhead
