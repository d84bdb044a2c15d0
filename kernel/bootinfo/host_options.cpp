#include "kernel/bootinfo/host_options.hpp"

#include "kernel/base/result.hpp"
#include "kernel/bootinfo/boot_errors.hpp"

namespace bulkhead {
namespace {

constexpr std::string_view known =
    fault_injection ? "console baud loglevel screen panic maxcpus acpi virtual-interrupts inject"
                    : "console baud loglevel screen panic maxcpus acpi virtual-interrupts";

// Decimal, 1 to 6 digits.
std::optional<u32> parse_number(std::string_view text) {
    if (text.empty() || text.size() > 6) return std::nullopt;
    u32 value = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return std::nullopt;
        value = value * 10 + static_cast<u32>(c - '0');
    }
    return value;
}

std::optional<bool> parse_switch(std::string_view text) {
    if (text == "on") return true;
    if (text == "off") return false;
    return std::nullopt;
}

void complain(HostOptions& options, const std::unexpected<Error>& error) {
    ++options.complaint_count;
    (void)options.complaints.push_back(error.error().text.view());
}

bool set_console(HostOptions& options, std::string_view value) {
    if (value == "none") return options.no_console = true;
    if (value.size() != 4 || !value.starts_with("com") || value[3] < '1' || value[3] > '4') return false;
    options.console = static_cast<u8>(value[3] - '1');
    return true;
}

bool set_baud(HostOptions& options, std::string_view value) {
    const auto number = parse_number(value);
    if (!number || *number < 1200 || *number > 115200 || 115200 % *number != 0) return false;
    options.baud = *number;
    return true;
}

// Why the value was refused; empty if it was not. The name is known.
std::string_view set(HostOptions& options, std::string_view name, std::string_view value) {
    if (name == "console") return set_console(options, value) ? "" : "com1 to com4 or none is wanted";
    if (name == "baud")
        return set_baud(options, value) ? "" : "1200 to 115200, a divisor of 115200, is wanted";
    if (name == "loglevel") {
        const auto level = parse_log_level(value);
        if (level) options.log_level = *level;
        return level ? "" : "error, warning, info or debug is wanted";
    }
    if (name == "panic") {
        if (value != "halt" && value != "reset") return "halt or reset is wanted";
        options.on_panic = value == "halt" ? HostOptions::OnPanic::halt : HostOptions::OnPanic::reset;
        return "";
    }
    if (name == "maxcpus") {
        const auto number = parse_number(value);
        if (!number || *number < 1 || *number > 256) return "1 to 256 is wanted";
        options.max_cpus = *number;
        return "";
    }
    const auto on = parse_switch(value);
    if (!on) return "on or off is wanted";
    if (name == "screen") options.screen = *on;
    if (name == "acpi") options.acpi = *on;
    if (name == "virtual-interrupts") options.virtual_interrupts = on;
    return "";
}

// `name` as one of the blank-separated words of `known`.
bool is_known(std::string_view name) {
    if (name.empty()) return false;
    for (std::string_view rest = known; !rest.empty();) {
        const usize end = rest.find(' ');
        if (rest.substr(0, end) == name) return true;
        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    }
    return false;
}

}  // namespace

HostOptions parse_host_options(std::string_view command_line) {
    HostOptions options;
    while (!command_line.empty()) {
        const usize space = command_line.find(' ');
        const std::string_view word = command_line.substr(0, space);
        command_line.remove_prefix(space == std::string_view::npos ? command_line.size() : space + 1);
        if (word.empty()) continue;
        const usize equals = word.find('=');
        const std::string_view name = word.substr(0, equals);
        if (!is_known(name)) {
            complain(options, fail(boot_error::unknown_option, word.substr(0, 40), known));
            continue;
        }
        const std::string_view value = equals == std::string_view::npos ? "" : word.substr(equals + 1);
        if (fault_injection && name == "inject") {
            const auto faults = parse_faults(value);
            if (faults) {
                options.faults = *faults;
            } else {
                complain(options,
                         fail(boot_error::bad_option, name, value.substr(0, 40), faults.error().text));
            }
            continue;
        }
        if (const std::string_view why = set(options, name, value); !why.empty()) {
            complain(options, fail(boot_error::bad_option, name, value.substr(0, 40), why));
        }
    }
    return options;
}

}  // namespace bulkhead
