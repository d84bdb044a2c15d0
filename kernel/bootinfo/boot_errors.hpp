// Every way in which starting up can fail on account of what the boot loader or the firmware hands over. One
// line each: "HV-Exxx: cause; action".
#pragma once

#include <string_view>

namespace bulkhead::boot_error {

// Multiboot.
constexpr std::string_view bad_magic =
    "HV-E101: not started by a Multiboot loader (magic {:#x}); use GRUB's multiboot2 or multiboot command";
constexpr std::string_view bad_information =
    "HV-E102: Multiboot information at {} is unreadable or malformed ({}); check the boot loader";
constexpr std::string_view no_memory_map =
    "HV-E103: the boot loader gave no memory map; use GRUB 2 or another loader that does";
constexpr std::string_view bad_memory_map =
    "HV-E104: memory map entry {}: {}; update the firmware or the boot loader";
constexpr std::string_view too_many_ranges =
    "HV-E105: the memory map has more than {} ranges; update the firmware";
constexpr std::string_view too_many_modules =
    "HV-E106: more than {} modules; remove some from the GRUB entry";
constexpr std::string_view bad_module = "HV-E107: module {} at {}..{}: {}; check the GRUB entry and the file";
constexpr std::string_view too_much_text =
    "HV-E108: command lines and module strings exceed {} bytes together; shorten the GRUB entry";

// ACPI. None of these stops the hypervisor: it goes on with one processor and says so.
constexpr std::string_view no_rsdp = "HV-E121: no ACPI root pointer found; going on with 1 CPU";
constexpr std::string_view bad_table =
    "HV-E122: ACPI table {} at {}: {}; going on without it, update the firmware";
constexpr std::string_view no_processors = "HV-E123: ACPI names no usable processor; going on with 1 CPU";

// The hypervisor's own command line. Reported, then ignored.
constexpr std::string_view unknown_option = "HV-E131: unknown host option \"{}\"; known are {}";
constexpr std::string_view bad_option = "HV-E132: host option {}={}: {}; using the default";

}  // namespace bulkhead::boot_error
