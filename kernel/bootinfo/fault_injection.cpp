#include "kernel/bootinfo/fault_injection.hpp"

#include <iterator>
#include <optional>

namespace bulkhead {
namespace {

constexpr std::string_view names[] = {
    "uart-absent",
    "uart-stuck",
    "no-rsdp",
    "bad-madt",
    "pm-timer-silent",
    "tsc-unstable",
    "timer-silent",
    "deadline-silent",
    "vmx-locked",
    "svm-locked",
    "vmxon",
    "core-asleep",
    "core-vmxon",
    "every-barrier",
    "allocation",
    "vm-entry",
    "unexpected-interrupt",
    "spurious-interrupt",
    "nmi",
    "corrected-machine-check",
    "memory-of-vm",
    "interrupt-storm",
    "core-silent",
    "core-lost",
    "first-core-silent",
    "general-protection",
    "page-fault",
    "invalid-opcode",
    "indirect-branch",
    "return-address",
    "double-fault",
    "stack-overflow",
    "assertion",
    "machine-check",
};
static_assert(std::size(names) == static_cast<usize>(Fault::count));

std::optional<Fault> find_fault(std::string_view name) {
    for (usize i = 0; i < std::size(names); ++i) {
        if (names[i] == name) return static_cast<Fault>(i);
    }
    return std::nullopt;
}

}  // namespace

std::string_view name_of(Fault fault) {
    return fault < Fault::count ? names[static_cast<usize>(fault)] : std::string_view("none");
}

Result<FaultSet> parse_faults(std::string_view value) {
    FaultSet faults;
    for (;;) {
        const usize comma = value.find(',');
        const std::string_view word = value.substr(0, comma);
        const auto fault = find_fault(word);
        if (!fault) return fail("\"{}\" is no fault that can be injected", word.substr(0, 40));
        faults.add(*fault);
        if (comma == std::string_view::npos) return faults;
        value.remove_prefix(comma + 1);
    }
}

}  // namespace bulkhead
