#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/entry_check_rules.hpp"

namespace bulkhead::vmx {
namespace {

// 27.2.1.1
void check_execution_controls(EntryRules& rules, const EntryCheckContext& context) {
    using namespace vmcs;
    const Capabilities& c = context.capabilities;
    rules.require_controls(pin_based_controls, c.pin);
    rules.require_controls(vmcs::primary_controls, c.primary);
    const u32 pin = read(pin_based_controls);
    const u32 first = read(vmcs::primary_controls);
    const bool has_second = (first & primary::activate_secondary_controls) != 0;
    const u32 second = has_second ? read(vmcs::secondary_controls) : 0;
    if (has_second) rules.require_controls(vmcs::secondary_controls, c.secondary);
    const auto on = [](u32 word, u32 control) { return (word & control) != 0; };

    rules.require(read(cr3_target_count) <= c.cr3_targets, cr3_target_count,
                  "must not exceed the number of CR3-target values supported");
    if (on(first, primary::use_io_bitmaps)) {
        rules.require_address(io_bitmap_a, page_size);
        rules.require_address(io_bitmap_b, page_size);
    }
    if (on(first, primary::use_msr_bitmaps)) rules.require_address(msr_bitmaps, page_size);

    const bool virtual_interrupts = on(second, secondary::virtual_interrupt_delivery);
    if (on(first, primary::use_tpr_shadow)) {
        rules.require_address(virtual_apic_address, page_size);
        const u32 threshold = read(tpr_threshold);
        if (!virtual_interrupts) {
            rules.require((threshold & ~0xFu) == 0, tpr_threshold,
                          "bits 31:4 must be 0 without virtual-interrupt delivery");
            if (!on(second, secondary::virtualize_apic_accesses)) {
                rules.require((threshold & 0xF) <= context.virtual_tpr >> 4, tpr_threshold,
                              "must not exceed bits 7:4 of the virtual TPR");
            }
        }
    } else {
        rules.require(
            !on(second, secondary::virtualize_x2apic_mode | secondary::apic_register_virtualization |
                            secondary::virtual_interrupt_delivery),
            vmcs::secondary_controls, "APIC virtualization needs the TPR shadow");
    }
    rules.require(on(pin, pin_based::nmi_exiting) || !on(pin, pin_based::virtual_nmis), pin_based_controls,
                  "virtual NMIs need NMI exiting");
    rules.require(on(pin, pin_based::virtual_nmis) || !on(first, primary::nmi_window_exiting),
                  vmcs::primary_controls, "NMI-window exiting needs virtual NMIs");
    if (on(second, secondary::virtualize_apic_accesses)) {
        rules.require_address(apic_access_address, page_size);
        rules.require(!on(second, secondary::virtualize_x2apic_mode), vmcs::secondary_controls,
                      "APIC accesses and x2APIC mode cannot be virtualized at once");
    }
    rules.require(!virtual_interrupts || on(pin, pin_based::external_interrupt_exiting), pin_based_controls,
                  "virtual-interrupt delivery needs external-interrupt exiting");
    rules.require(!on(pin, pin_based::process_posted_interrupts), pin_based_controls,
                  "posted interrupts are not in use");
    if (on(second, secondary::enable_vpid)) {
        rules.require(read(virtual_processor_identifier) != 0, virtual_processor_identifier, "must not be 0");
    }
    const bool ept = on(second, secondary::enable_ept);
    if (ept) {
        const u64 eptp = read(ept_pointer);
        rules.require(extract(eptp, 2, 0) == 6 || extract(eptp, 2, 0) == 0, ept_pointer,
                      "the memory type (bits 2:0) must be 0 or 6");
        rules.require(extract(eptp, 5, 3) == 3, ept_pointer,
                      "the page-walk length less one (bits 5:3) must be 3");
        rules.require(!has_bit(eptp, 6) || c.ept_accessed_dirty, ept_pointer,
                      "accessed and dirty flags (bit 6) are not supported");
        rules.require(extract(eptp, 11, 7) == 0 && rules.is_physical(eptp), ept_pointer,
                      "bits 11:7 and those beyond the physical-address width must be 0");
    }
    if (on(second, secondary::enable_pml)) {
        rules.require(ept, vmcs::secondary_controls, "page-modification logging needs EPT");
        rules.require_address(pml_address, page_size);
    }
    rules.require(ept || !on(second, secondary::unrestricted_guest), vmcs::secondary_controls,
                  "unrestricted guest needs EPT");
}

// 27.2.1.2
void check_exit_controls(EntryRules& rules, const EntryCheckContext& context) {
    using namespace vmcs;
    rules.require_controls(vm_exit_controls, context.capabilities.exit);
    const u32 controls = read(vm_exit_controls);
    rules.require((read(pin_based_controls) & pin_based::preemption_timer) != 0 ||
                      (controls & vm_exit::save_preemption_timer) == 0,
                  vm_exit_controls, "saving the preemption timer needs the timer");
    if (read(vm_exit_msr_store_count) != 0) rules.require_address(vm_exit_msr_store_address, 16);
    if (read(vm_exit_msr_load_count) != 0) rules.require_address(vm_exit_msr_load_address, 16);
}

void check_injection(EntryRules& rules, const EntryCheckContext& context) {
    using namespace vmcs;
    const u32 information = read(vm_entry_interruption_information);
    if ((information & interruption::valid) == 0) return;
    const u32 type = interruption::type_of(information);
    const u8 vector = interruption::vector_of(information);
    const auto& field = vm_entry_interruption_information;
    rules.require(type != 1 && type != interruption::type_other, field,
                  "the type (bits 10:8) must be 0 or 2 to 6");
    rules.require(type != interruption::type_nmi || vector == 2, field, "the vector of an NMI must be 2");
    rules.require(type != interruption::type_hardware_exception || vector <= 31, field,
                  "the vector of a hardware exception must be at most 31");
    rules.require((information & 0x7FFF'F000) == 0, field, "bits 30:12 must be 0");
    const bool delivers_code = (information & interruption::deliver_error_code) != 0;
    const bool real_mode = (read(guest_cr0) & cr0::pe) == 0;
    const bool pushes_code =
        type == interruption::type_hardware_exception && pushes_error_code(vector) && !real_mode;
    rules.require(
        delivers_code == pushes_code, field,
        "an error code (bit 11) must be delivered in protected mode, with the exceptions that have one");
    if (delivers_code) {
        rules.require((read(vm_entry_exception_error_code) >> 16) == 0, vm_entry_exception_error_code,
                      "bits 31:16 must be 0");
    }
    if (type >= interruption::type_software_interrupt && type <= interruption::type_software_exception) {
        const u32 length = read(vm_entry_instruction_length);
        rules.require(length <= 15 && (length != 0 || context.capabilities.zero_length_injection),
                      vm_entry_instruction_length, "must be 1 to 15 (0 where the processor allows it)");
    }
}

// 27.2.1.3
void check_entry_control_fields(EntryRules& rules, const EntryCheckContext& context) {
    using namespace vmcs;
    rules.require_controls(vm_entry_controls, context.capabilities.entry);
    rules.require(
        (read(vm_entry_controls) & (vm_entry::entry_to_smm | vm_entry::deactivate_dual_monitor)) == 0,
        vm_entry_controls, "entry to SMM and deactivate dual-monitor treatment must be 0 outside SMM");
    if (read(vm_entry_msr_load_count) != 0) rules.require_address(vm_entry_msr_load_address, 16);
    check_injection(rules, context);
}

}  // namespace

void check_entry_controls(const EntryCheckContext& context, EntryViolations& violations) {
    EntryRules rules(context, violations);
    check_execution_controls(rules, context);
    check_exit_controls(rules, context);
    check_entry_control_fields(rules, context);
}

void print_entry_violations(const EntryCheckContext& context, Sink& sink) {
    EntryViolations violations;
    check_entry_controls(context, violations);
    check_entry_host_state(context, violations);
    check_entry_guest_state(context, violations);
    for (const EntryViolation& violation : violations) {
        print(sink, "{} = {:#x}: {}\n", violation.field, violation.value, violation.rule);
    }
    if (violations.empty()) print(sink, "no VM-entry check known here is violated\n");
}

}  // namespace bulkhead::vmx
