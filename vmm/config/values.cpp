// The values of the config file's settings: each a small language of its own.
#include "kernel/base/filtered.hpp"
#include "vmm/config/config.hpp"

namespace bulkhead {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Takes a decimal number off the front of `text`. False, with nothing taken, if there is none or it does not
// fit.
bool take_number(std::string_view& text, u64& value) {
    u64 result = 0;
    usize at = 0;
    while (at < text.size() && is_digit(text[at])) {
        const u64 digit = static_cast<u64>(text[at] - '0');
        if (result > (~u64{0} - digit) / 10) return false;
        result = result * 10 + digit;
        ++at;
    }
    if (at == 0) return false;
    text.remove_prefix(at);
    value = result;
    return true;
}

bool take(std::string_view& text, char c) {
    if (text.empty() || text[0] != c) return false;
    text.remove_prefix(1);
    return true;
}

void skip_blanks(std::string_view& text) {
    while (take(text, ' ') || take(text, '\t')) {
    }
}

}  // namespace

unsigned CpuSet::count() const {
    unsigned result = 0;
    for (const u64 word : words_) {
        // Not std::popcount: without the POPCNT instruction it is a call into libgcc.
        for (u64 rest = word; rest != 0; rest &= rest - 1) ++result;
    }
    return result;
}

Result<CpuSet> parse_cpu_list(std::string_view text) {
    CpuSet set;
    std::string_view rest = text;
    do {
        skip_blanks(rest);
        u64 first = 0;
        if (!take_number(rest, first))
            return fail("expected a core's number; write a list such as \"1-2,4\"");
        u64 last = first;
        if (take(rest, '-') && !take_number(rest, last)) {
            return fail("the range {}- has no end; write a list such as \"1-2,4\"", first);
        }
        if (last < first)
            return fail("the range {}-{} runs backwards; write {}-{}", first, last, last, first);
        if (last >= CpuSet::max_cpus) {
            return fail("core {} is out of range; cores are numbered 0 to {}", last, CpuSet::max_cpus - 1);
        }
        for (u64 cpu = first; cpu <= last; ++cpu) set.add(static_cast<unsigned>(cpu));
        skip_blanks(rest);
    } while (take(rest, ','));
    if (!rest.empty())
        return fail("unexpected \"{}\" in the list; write a list such as \"1-2,4\"", Filtered(rest));
    return set;
}

void format_value(Sink& sink, const CpuSet& set) {
    bool first = true;
    for (unsigned cpu = 0; cpu < CpuSet::max_cpus; ++cpu) {
        if (!set.contains(cpu)) continue;
        unsigned last = cpu;
        while (set.contains(last + 1)) ++last;
        if (!first) sink.write(",");
        first = false;
        print(sink, "{}", cpu);
        if (last > cpu) print(sink, "-{}", last);
        cpu = last;
    }
}

Result<u64> parse_size(std::string_view text) {
    std::string_view rest = text;
    u64 value = 0;
    if (!take_number(rest, value))
        return fail("\"{}\" is not a size; write one such as \"512M\"", Filtered(text));
    u64 unit = 1;
    if (take(rest, 'K') || take(rest, 'k')) {
        unit = kib;
    } else if (take(rest, 'M') || take(rest, 'm')) {
        unit = mib;
    } else if (take(rest, 'G') || take(rest, 'g')) {
        unit = gib;
    }
    if (!rest.empty()) return fail("\"{}\" is not a size; the suffixes are K, M and G", Filtered(text));
    if (value > ~u64{0} / unit)
        return fail("\"{}\" does not fit 64 bits; write a smaller size", Filtered(text));
    return value * unit;
}

Result<CpuLimit> parse_cpu_limit(std::string_view text) {
    constexpr u64 shortest = 1000;  // as in Linux: 1 ms .. 1 s
    constexpr u64 longest = 1'000'000;
    CpuLimit limit;
    std::string_view rest = text;
    skip_blanks(rest);
    if (rest.starts_with("max")) {
        rest.remove_prefix(3);
    } else if (!take_number(rest, limit.quota_us)) {
        return fail("\"{}\" is not a limit; write \"QUOTA PERIOD\" in microseconds, or \"max\"",
                    Filtered(text));
    }
    const bool blank = !rest.empty() && (rest[0] == ' ' || rest[0] == '\t');
    skip_blanks(rest);
    if (blank && !rest.empty()) {
        if (!take_number(rest, limit.period_us)) rest = "?";
        skip_blanks(rest);
    }
    if (!rest.empty()) {
        return fail("\"{}\" is not a limit; write \"QUOTA PERIOD\" in microseconds, or \"max\"",
                    Filtered(text));
    }
    if (limit.period_us < shortest || limit.period_us > longest) {
        return fail("the period of {} us is out of range; give {} to {}", limit.period_us, shortest, longest);
    }
    if (limit.quota_us < shortest) {
        return fail("the quota of {} us is too small; give at least {}", limit.quota_us, shortest);
    }
    return limit;
}

Result<u8> parse_escape_key(std::string_view text) {
    constexpr std::string_view prefix = "ctrl-";
    bool good = text.size() == prefix.size() + 1;
    for (usize i = 0; good && i < prefix.size(); ++i)
        good = (text[i] | 0x20) == prefix[i] || text[i] == prefix[i];
    if (!good) return fail("\"{}\" is not an escape key; write one such as \"ctrl-]\"", Filtered(text));
    char key = text.back();
    if (key >= 'a' && key <= 'z') key = static_cast<char>(key - 0x20);
    if (key < 'A' || key > '_') {
        return fail("\"{}\" is no control key; use ctrl- with a letter or one of \\ ] ^ _", Filtered(text));
    }
    // Keys that guests cannot do without: Escape, Enter, Tab, Backspace.
    if (key == '[' || key == 'M' || key == 'J' || key == 'I' || key == 'H') {
        return fail("\"{}\" is a key that guests need (Escape, Enter, Tab or Backspace); use \"ctrl-]\"",
                    Filtered(text));
    }
    return static_cast<u8>(key & 0x1F);
}

FixedString<8> name_of_key(u8 control) {
    FixedString<8> name;
    print(name, "CTRL-{}", static_cast<char>((control & 0x1F) | 0x40));
    return name;
}

Result<> check_vm_name(std::string_view name) {
    if (name.empty()) return fail("the VM's name is empty; use A-Z a-z 0-9 . _ and -");
    if (name.size() > 31) return fail("the VM's name has {} characters; at most 31 are allowed", name.size());
    bool all_digits = true;
    for (const char c : name) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !is_digit(c) && c != '.' && c != '_' && c != '-') {
            return fail("VM name \"{}\" has a character that is not allowed; use A-Z a-z 0-9 . _ and -",
                        Filtered(name));
        }
        all_digits = all_digits && is_digit(c);
    }
    if (all_digits) return fail("VM name \"{}\" looks like an id; add a letter", name);
    if (name[0] == '-')
        return fail("VM name \"{}\" looks like an option; start with a letter or digit", name);
    return {};
}

std::string_view name_of(ComPort value) {
    constexpr std::string_view names[] = {"none", "com1", "com2", "com3", "com4"};
    return names[static_cast<usize>(value)];
}

std::string_view name_of(PanicAction value) {
    constexpr std::string_view names[] = {"halt", "reset"};
    return names[static_cast<usize>(value)];
}

std::string_view name_of(LifecycleAction value) {
    constexpr std::string_view names[] = {"restart", "destroy", "preserve"};
    return names[static_cast<usize>(value)];
}

std::string_view VmConfig::module(usize index) const {
    const usize start = index == 0 ? 0 : module_ends_[index - 1];
    return {module_text_.view().data() + start, module_ends_[index] - start};
}

std::string_view VmConfig::module_name(usize index) const {
    const std::string_view text = module(index);
    return text.substr(0, text.find(' '));
}

std::string_view VmConfig::module_arguments(usize index) const {
    std::string_view text = module(index);
    text.remove_prefix(module_name(index).size());
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    return text;
}

bool VmConfig::add_module(std::string_view text) {
    if (text.size() > module_text_.capacity() - module_text_.size() || module_ends_.full()) return false;
    module_text_.append(text);
    return module_ends_.push_back(static_cast<u16>(module_text_.size()));
}

void VmConfig::clear_modules() {
    module_text_.clear();
    module_ends_.clear();
}

}  // namespace bulkhead
