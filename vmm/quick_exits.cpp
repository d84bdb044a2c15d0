#include "vmm/quick_exits.hpp"

#include "vmm/virtual_machine.hpp"

namespace bulkhead {

// Nothing has come about that Vcpu::run() would have to look at: the VM goes on, no interrupt was posted, and
// no timer is due at another time than it saw.
bool QuickExits::is_quiet() const {
    return !vm_.stopped() && !msrs_.apic.may_have_event() &&
           (vcpu_ != VirtualMachine::timekeeper || vm_.device_deadline() == device_deadline);
}

// A page walk where nothing is out of the ordinary: four levels, a page of 4 KiB or 2 MiB in RAM, every flag
// that it would set set already, and allowed whatever WP, SMAP and RFLAGS.AC say. Else null.
u8* QuickExits::ram_at(u64 linear, bool write, const Paging& paging) {
    constexpr u64 present = bit(0), writable = bit(1), user = bit(2), accessed = bit(5), dirty = bit(6),
                  large = bit(7), no_execute = bit(63);
    const bool user_access = paging.cpl == 3;
    if ((paging.cr4 & cr4::la57) != 0 || !is_canonical(linear, false)) return nullptr;
    const u64 address_mask = low_mask(msrs_.cpuid.physical_bits()) & ~low_mask(12);
    const u64 reserved =
        (low_mask(52) & ~low_mask(12) & ~address_mask) | ((paging.efer & efer::nxe) != 0 ? 0 : no_execute);
    const u64 wanted = present | accessed | (write ? writable : 0) | (user_access ? user : 0);
    const u64 hidden = msrs_.apic.mode() == ApicMode::xapic ? msrs_.apic.page_address().raw() : ~u64{0};
    const GuestMemory& memory = vm_.memory();
    u64 table = paging.cr3 & address_mask;
    for (unsigned shift = 39;; shift -= 9) {
        const u8* at = memory.at(GuestPhysical(table + (linear >> shift) % 512 * 8), 8);
        if (at == nullptr || table == hidden) return nullptr;
        const u64 entry = __atomic_load_n(reinterpret_cast<const u64*>(at), __ATOMIC_RELAXED);
        if ((entry & wanted) != wanted || (entry & reserved) != 0) return nullptr;
        if (!user_access && (entry & user) != 0 && (paging.cr4 & cr4::smap) != 0) return nullptr;
        table = entry & address_mask;
        if (shift != 12 && (entry & large) == 0) continue;
        const u64 offset = low_mask(shift);
        if (shift > 21 || (shift == 21 && (table & offset & ~bit(12)) != 0)) return nullptr;
        if (write && (entry & dirty) == 0) return nullptr;
        const GuestPhysical address((table & ~offset) | (linear & offset));
        if (address.align_down(page_size).raw() == hidden) return nullptr;
        if (write && !memory.is_writable(address)) return nullptr;
        return memory.at(address, 1);
    }
}

u8* QuickExits::string_bytes(const PortAccess& access, const Paging& paging, u64 flags,
                             const GeneralRegisters& registers) {
    const u64 bytes = registers.rcx * access.size;
    const u64 linear = access.in ? registers.rdi : registers.rsi;
    const bool plain = access.repeat && access.string_details && access.address_size == 8 &&
                       access.segment < SegmentName::fs && (flags & rflags::df) == 0;
    // Misaligned elements matter to #AC only, and that to user programs only.
    if (!plain || registers.rcx - 1 >= most_string_bytes || bytes > most_string_bytes ||
        linear % page_size + bytes > page_size || (access.size != 1 && paging.cpl == 3)) {
        return nullptr;
    }
    return ram_at(linear, access.in, paging);
}

QuickExits::Answer QuickExits::string(const PortAccess& access, u8* bytes, GeneralRegisters& registers) {
    u8 buffer[most_string_bytes];
    const usize count = static_cast<usize>(registers.rcx * access.size);
    if (access.in) {
        vm_.port_read_string(access.port, access.size, MutableBytes(buffer, count), vcpu_);
        __builtin_memcpy(bytes, buffer, count);
        registers.rdi += count;
    } else {
        // What the guest changes meanwhile does not matter: each byte is read once.
        __builtin_memcpy(buffer, bytes, count);
        vm_.port_write_string(access.port, access.size, Bytes(buffer, count), vcpu_);
        registers.rsi += count;
    }
    registers.rcx = 0;
    return is_quiet() ? Answer::done : Answer::look;
}

// Such an access has its reasons to have exited: ROM, or the local APIC's page in RAM's place.
bool QuickExits::is_ram(GuestPhysical address) const {
    return vm_.memory().contains(address);
}

QuickExits::Answer QuickExits::port(const PortAccess& access, GeneralRegisters& registers) {
    const u32 mask = ~u32{0} >> (32 - 8 * access.size);
    if (access.in) {
        const u64 value = vm_.port_read(access.port, access.size, vcpu_);
        registers.rax = access.size == 4 ? value : (registers.rax & ~u64{mask}) | value;
    } else {
        vm_.port_write(access.port, access.size, static_cast<u32>(registers.rax) & mask, vcpu_);
    }
    return is_quiet() ? Answer::done : Answer::look;
}

void QuickExits::read_task_priority() {
    if (vm_.apic_assist() != ApicAssist::none) return;
    const u8 priority = msrs_.backend.cr8();
    if (priority == msrs_.apic.cr8()) return;
    msrs_.apic.set_cr8(priority);
    apic_touched = true;
}

// The local APIC has done something. Where no hardware delivers from it, nothing follows from that while
// nothing waits in it.
QuickExits::Answer QuickExits::after_apic() {
    if (vm_.apic_assist() == ApicAssist::full) {
        apic_touched = true;
        return Answer::look;
    }
    if (msrs_.apic.cr8() != msrs_.backend.cr8()) msrs_.backend.set_cr8(msrs_.apic.cr8());
    if (is_quiet() && !apic_touched && !msrs_.apic.has_request() && msrs_.apic.deadline() == apic_deadline)
        return Answer::done;
    apic_touched = true;
    return Answer::look;
}

QuickExits::Answer QuickExits::write_msr(u32 index, u64 value) {
    constexpr u32 tsc = 0x10, tsc_adjust = 0x3B;
    if (reaches_apic(MsrIndex(index))) {
        read_task_priority();
        return bulkhead::write_msr(MsrIndex(index), value, msrs_) ? after_apic() : Answer::no;
    }
    if (index == msr::apic_base.raw()) return value == msrs_.apic.base() ? Answer::done : Answer::no;
    if (index == tsc || index == tsc_adjust) return Answer::no;
    return bulkhead::write_msr(MsrIndex(index), value, msrs_) ? Answer::look : Answer::no;
}

QuickExits::Answer QuickExits::move(const Instruction& instruction, GuestPhysical address,
                                    GeneralRegisters& registers) {
    const unsigned size = instruction.operand_size;
    const u64 mask = all_ones(size);
    const bool load = instruction.opcode == 0x8B;
    const u64 value =
        load ? 0 : mask & (instruction.opcode == 0xC7 ? instruction.immediate : registers[instruction.reg()]);
    LocalApic& apic = msrs_.apic;
    if (address.align_down(page_size) == apic.page_address() && apic.mode() == ApicMode::xapic) {
        read_task_priority();
        if (load) {
            registers[instruction.reg()] = apic.read(address.offset_in(page_size), size) & mask;
        } else {
            apic.write(address.offset_in(page_size), size, value);
        }
        return after_apic();
    }
    if (load) {
        registers[instruction.reg()] = vm_.mmio_read(address.raw(), size, vcpu_) & mask;
    } else {
        vm_.mmio_write(address.raw(), size, value, vcpu_);
    }
    return is_quiet() ? Answer::done : Answer::look;
}

}  // namespace bulkhead
