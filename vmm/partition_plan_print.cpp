// The plan as tables for the operator. They go to a serial line and to the log, whose lines are short: what
// is long is continued on the next line, in its column.
#include "kernel/base/filtered.hpp"
#include "vmm/partition_plan.hpp"

namespace bulkhead {
namespace {

constexpr usize line_length = 100;

std::string_view spaces(usize count) {
    constexpr std::string_view blank = "                                        ";
    return blank.substr(0, count < blank.size() ? count : blank.size());
}

void column(Sink& sink, std::string_view text, usize width) {
    sink.write(text);
    sink.write(text.size() < width ? spaces(width - text.size()) : std::string_view(" "));
}

void number(Sink& sink, u64 value, usize width) {
    FixedString<24> text;
    print(text, "{}", value);
    if (text.size() < width) sink.write(spaces(width - text.size()));
    sink.write(text);
}

void mebibytes(Sink& sink, u64 units, usize width) {
    FixedString<24> text;
    print(text, "{}M", units * (UnitAllocator::unit_size / mib));
    if (text.size() < width) sink.write(spaces(width - text.size()));
    sink.write(text);
}

// Words in a column that begins at `indent`, where the line is now. A word that is too long for any line is
// cut.
class Words {
  public:
    Words(Sink& sink, usize indent) : sink_(sink), indent_(indent), at_(indent) {}

    void add(std::string_view word) {
        if (word.size() > line_length - indent_) word = word.substr(0, line_length - indent_);
        if (at_ != indent_) {
            if (at_ + 1 + word.size() > line_length) {
                sink_.write("\n");
                sink_.write(spaces(indent_));
                at_ = indent_;
            } else {
                sink_.write(" ");
                ++at_;
            }
        }
        sink_.write(word);
        at_ += word.size();
    }
    // A sentence, word by word.
    void text(std::string_view text) {
        while (!text.empty()) {
            const usize end = text.find(' ');
            if (end != 0) add(text.substr(0, end));
            if (end == std::string_view::npos) return;
            text.remove_prefix(end + 1);
        }
    }
    void end() { sink_.write("\n"); }

  private:
    Sink& sink_;
    usize indent_;
    usize at_;
};

using ShownName = FixedString<31>;

// Of a refused VM the name may be anything.
ShownName shown(const VmPlan& vm) {
    ShownName name;
    print(name, "{}", Filtered(vm.config->name));
    if (name.empty()) name.append("?");
    return name;
}

usize name_width(std::span<const VmPlan> vms) {
    usize width = 11;
    for (const VmPlan& vm : vms) {
        if (vm.config != nullptr && shown(vm).size() > width) width = shown(vm).size();
    }
    return width + 1;
}

std::string_view start_of(const VmPlan& vm) {
    switch (vm.verdict) {
        case VmPlan::Verdict::accepted:
            return vm.config->autostart ? std::string_view("starts") : std::string_view("by hand");
        case VmPlan::Verdict::no_memory: return "no memory";
        case VmPlan::Verdict::unused:
        case VmPlan::Verdict::refused: break;
    }
    return "refused";
}

bool uses(const VmConfig& config, std::string_view module) {
    bool found = config.kernel == module || config.initrd == module;
    for (usize i = 0; i < config.module_count(); ++i) {
        const std::string_view text = config.module(i);
        found = found || text.substr(0, text.find(' ')) == module;
    }
    return found;
}

// A gang runs all at once or not at all, which takes a core for each.
bool gang_in_vain(const VmPlan& vm) {
    if (!vm.config->gang || !vm.placed()) return false;
    for (unsigned a = 0; a < vm.vcpus; ++a) {
        for (unsigned b = 0; b < a; ++b) {
            if (vm.cores[a] == vm.cores[b]) return true;
        }
    }
    return false;
}

}  // namespace

void PartitionPlan::print_cores(Sink& sink) const {
    sink.write("CORE    APIC USE       BY\n");
    for (unsigned core = 0; core < core_count_; ++core) {
        const CoreInfo info = host_.core_info(core);
        const CoreUse use = use_of(core);
        number(sink, core, 4);
        number(sink, info.apic_id, 8);
        sink.write(" ");
        column(sink, name_of(use), 10);
        Words by(sink, 23);
        if (use == CoreUse::offline) {
            by.text(info.reason);
            by.end();
            continue;
        }
        if (core == 0) by.add("console");
        for (usize i = 0; i < max_vms; ++i) {
            const VmPlan& vm = vms_[i];
            if (vm.config == nullptr) continue;
            for (unsigned vcpu = 0; vcpu < vm.vcpus; ++vcpu) {
                if (vm.cores[vcpu] != core) continue;
                FixedString<40> word;
                bulkhead::print(word, "{}/{}", shown(vm), vcpu);
                by.add(word);
            }
            if (use == CoreUse::reserved && counted_[i].contains(core)) by.add(shown(vm));
        }
        by.end();
    }
}

void PartitionPlan::print_vms(Sink& sink) const {
    const usize width = name_width(vms_);
    column(sink, "VM", width);
    sink.write("PLAN      VCPUS    MEMORY CORES OF VCPU 0, 1, ...\n");
    for (const VmPlan& vm : vms_) {
        if (vm.config == nullptr) continue;
        column(sink, shown(vm), width);
        if (vm.vcpus == 0) {
            sink.write("refused\n");
            continue;
        }
        column(sink, start_of(vm), 10);
        number(sink, vm.vcpus, 5);
        mebibytes(sink, vm.need.ram_units, 10);
        sink.write(" ");
        Words cores(sink, width + 26);
        for (unsigned vcpu = 0; vcpu < vm.vcpus; ++vcpu) {
            FixedString<8> word;
            bulkhead::print(word, "{}", vm.cores[vcpu]);
            cores.add(word);
        }
        cores.end();
    }
}

void PartitionPlan::print_memory(Sink& sink) const {
    const usize width = name_width(vms_);
    column(sink, "MEMORY", width);
    sink.write("FOR            SIZE RANGE\n");
    for (const VmPlan& vm : vms_) {
        if (vm.config == nullptr) continue;
        for (usize i = 0; i < vm.memory.size(); ++i) {
            const UnitRun& run = vm.memory[i];
            column(sink, shown(vm), width);
            column(sink, i == 0 ? std::string_view("overhead") : std::string_view("RAM"), 9);
            mebibytes(sink, run.units, 10);
            bulkhead::print(sink, " {}-{}\n", run.start, run.end() - 1);
        }
    }
    column(sink, "left", width + 9);
    mebibytes(sink, left_units_, 10);
    sink.write("\n");
}

void PartitionPlan::print_modules(Sink& sink) const {
    if (modules_.empty()) return;
    column(sink, "MODULE", 32);
    sink.write("     BYTES USED BY\n");
    for (const BootModule& module : modules_) {
        FixedString<31> name;
        bulkhead::print(name, "{}", Filtered(module.name));
        column(sink, name, 32);
        number(sink, module.size(), 10);
        sink.write(" ");
        Words users(sink, 43);
        // Of modules with the same name the first counts.
        if (find_module(module.name) != &module) {
            users.text("nobody: another module has this name");
            users.end();
            continue;
        }
        bool used = false;
        for (const VmPlan& vm : vms_) {
            if (vm.config == nullptr || !uses(*vm.config, module.name)) continue;
            users.add(shown(vm));
            used = true;
        }
        if (!used) users.add("-");
        users.end();
    }
}

void PartitionPlan::print_problems(Sink& sink) const {
    for (const VmPlan& vm : vms_) {
        if (vm.config == nullptr) continue;
        if (!vm.reason.empty()) {
            FixedString<60> head;
            bulkhead::print(head, "{} {}: ",
                            vm.verdict == VmPlan::Verdict::refused ? std::string_view("refused")
                                                                   : std::string_view("not started"),
                            shown(vm));
            sink.write(head);
            Words reason(sink, head.size());
            reason.text(vm.reason);
            reason.end();
        }
        if (gang_in_vain(vm)) {
            bulkhead::print(sink, "note {}: cpu.gang needs a core for each vCPU; give it more cores\n",
                            shown(vm));
        }
    }
}

void PartitionPlan::print(Sink& sink) const {
    unsigned vms = 0;
    for (const VmPlan& vm : vms_) vms += vm.config != nullptr ? 1 : 0;
    bulkhead::print(sink, "partition plan: {} VMs, {} cores ({} online), {} MiB for VMs\n", vms, core_count_,
                    online_.count(), units_.managed_units() * (UnitAllocator::unit_size / mib));
    print_cores(sink);
    print_vms(sink);
    print_memory(sink);
    print_modules(sink);
    sink.write(
        "DEVICES     each VM has a standard virtual PC of its own; no device of this machine is given "
        "away\n");
    print_problems(sink);
}

}  // namespace bulkhead
