#include "vmm/partition_plan.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

using namespace bulkhead;
using PlanVerdict = VmPlan::Verdict;

namespace {

// Cores, and nothing else of a machine.
class Cores final : public HostServices {
  public:
    explicit Cores(unsigned count) : infos(count) {
        for (unsigned i = 0; i < count; ++i) infos[i] = {.apic_id = 2 * i, .online = true, .reason = {}};
    }
    void offline(unsigned core, const char* reason) { infos[core] = {2 * core, false, reason}; }

    unsigned core_count() const override { return static_cast<unsigned>(infos.size()); }
    CoreInfo core_info(unsigned core) const override { return infos.at(core); }

    void enter_address_space(HostPhysical) override { FAIL("a plan enters no address space"); }
    const HostPageTable& kernel_table() const override { std::abort(); }
    Result<> map(const PhysicalRange&, Permissions) override { return fail("a plan maps nothing"); }
    Result<> unmap(const PhysicalRange&) override { return fail("a plan maps nothing"); }
    unsigned max_page_level() const override { return 3; }
    HostInfo info() const override { return {}; }
    Result<> reboot() override { return fail("no"); }
    Result<> power_off() override { return fail("no"); }

    std::vector<CoreInfo> infos;
};

class Text final : public Sink {
  public:
    void write(std::string_view text) override { all.append(text); }
    std::string all;
};

MemoryNeed need_of(const VmConfig& config) {
    return {.overhead_units = 1, .ram_units = (config.memory_bytes + large_page_size - 1) / large_page_size};
}

struct Machine {
    explicit Machine(unsigned core_count, u64 memory = gib, std::vector<BootModule> with = default_modules())
        : cores(core_count), modules(std::move(with)) {
        REQUIRE(units->add_usable(HostPhysical(16 * mib), memory));
        plan = std::make_unique<PartitionPlan>(cores, *units, modules, need_of);
    }
    static std::vector<BootModule> default_modules() {
        return {{HostPhysical(mib), HostPhysical(2 * mib), "vmlinuz", ""},
                {HostPhysical(2 * mib), HostPhysical(3 * mib), "initrd", ""},
                {HostPhysical(3 * mib), HostPhysical(4 * mib), "tool", "words"}};
    }
    void make() {
        plan->make(vms);
        check_invariants();
        // Planned memory is nobody else's.
        std::set<u64> taken;
        for (usize i = 0; i < PartitionPlan::max_vms; ++i) {
            for (const UnitRun& run : plan->vm(i).memory) {
                for (u64 u = 0; u < run.units; ++u) {
                    REQUIRE(taken.insert(run.start.raw() + u * large_page_size).second);
                }
            }
        }
        REQUIRE(units->free_units() == units->managed_units());
    }
    // Configurations stay where they are: the plan points at them.
    VmConfig& add(std::string_view name, std::string_view cpus, unsigned vcpus, u64 memory = 64 * mib) {
        REQUIRE(vms.size() < vms.capacity());
        VmConfig& vm = vms.emplace_back();
        vm.name.append(name);
        if (!cpus.empty()) vm.cpus = parse_cpu_list(cpus).value();
        vm.vcpus = vcpus;
        vm.memory_bytes = memory;
        vm.kernel.append("vmlinuz");
        return vm;
    }
    std::vector<unsigned> cores_of(usize vm) const {
        const VmPlan& p = plan->vm(vm);
        return {p.cores, p.cores + p.vcpus};
    }
    std::string reason(usize vm) const { return std::string(plan->vm(vm).reason.view()); }
    std::string printed() const {
        Text text;
        plan->print(text);
        return text.all;
    }

    // What holds of every plan.
    void check_invariants() const {
        std::vector<unsigned> load(PartitionPlan::max_cores);
        for (usize i = 0; i < PartitionPlan::max_vms; ++i) {
            const VmPlan& vm = plan->vm(i);
            REQUIRE((vm.vcpus == 0) ==
                    (vm.verdict == PlanVerdict::unused || vm.verdict == PlanVerdict::refused));
            REQUIRE(vm.reason.empty() ==
                    (vm.verdict == PlanVerdict::unused || vm.verdict == PlanVerdict::accepted));
            REQUIRE(vm.placed() == (vm.vcpus != 0));
            for (unsigned v = 0; v < vm.vcpus; ++v) {
                REQUIRE(vm.cores[v] < cores.infos.size());
                REQUIRE(cores.infos[vm.cores[v]].online);
                ++load[vm.cores[v]];
            }
            u64 units_planned = 0;
            for (const UnitRun& run : vm.memory) units_planned += run.units;
            if (!vm.memory.empty()) {
                REQUIRE(vm.verdict == PlanVerdict::accepted);
                REQUIRE(units_planned == vm.need.units());
                REQUIRE(vm.memory[0].units == vm.need.overhead_units);
            }
        }
        for (unsigned core = 0; core < PartitionPlan::max_cores; ++core) {
            REQUIRE(plan->vcpus_on(core) == load[core]);
            unsigned sum = 0;
            for (usize i = 0; i < PartitionPlan::max_vms; ++i) sum += plan->vcpus_on(core, i);
            REQUIRE(sum == load[core]);
            const bool online = core < cores.infos.size() && cores.infos[core].online;
            const CoreUse use = plan->use_of(core);
            REQUIRE((use == CoreUse::offline) == !online);
            REQUIRE((use == CoreUse::dedicated) == (online && load[core] == 1 && core != 0));
            REQUIRE((use == CoreUse::shared) == (load[core] > 1 || (core == 0 && load[core] == 1)));
        }
        std::istringstream lines(printed());
        for (std::string line; std::getline(lines, line);) {
            INFO(line);
            REQUIRE(line.size() <= 100);
        }
    }

    Cores cores;
    std::vector<BootModule> modules;
    std::unique_ptr<UnitAllocator> units = std::make_unique<UnitAllocator>();
    std::unique_ptr<PartitionPlan> plan;
    std::vector<VmConfig> vms = [] {
        std::vector<VmConfig> room;
        room.reserve(256);
        return room;
    }();
};

using List = std::vector<unsigned>;

}  // namespace

TEST_CASE("a vCPU of a VM with a cpuset goes to the core of its number in the set, round robin") {
    Machine m(8);
    m.add("one-to-one", "2,4,6", 3);
    m.add("fewer", "5,7", 1);
    m.add("more", "1,3", 5);
    m.make();
    CHECK(m.cores_of(0) == List{2, 4, 6});
    CHECK(m.cores_of(1) == List{5});
    CHECK(m.cores_of(2) == List{1, 3, 1, 3, 1});
    CHECK(m.plan->use_of(2) == CoreUse::dedicated);
    CHECK(m.plan->use_of(5) == CoreUse::dedicated);
    CHECK(m.plan->use_of(7) == CoreUse::reserved);
    CHECK(m.plan->use_of(1) == CoreUse::shared);
    CHECK(m.plan->vcpus_on(1, 2) == 3);
    CHECK(m.plan->use_of(0) == CoreUse::free);
    CHECK(m.plan->use_of(8) == CoreUse::offline);
}

TEST_CASE("a core that two VMs name is shared by both") {
    Machine m(4);
    m.add("a", "1-2", 2);
    m.add("b", "2-3", 2);
    m.make();
    CHECK(m.plan->use_of(1) == CoreUse::dedicated);
    CHECK(m.plan->use_of(2) == CoreUse::shared);
    CHECK(m.plan->use_of(3) == CoreUse::dedicated);
    CHECK_THAT(m.printed(), Catch::Contains("   2       4 shared    a/1 b/0\n"));
}

TEST_CASE("a VM without a cpuset is spread over cores that nobody names, core 0 last") {
    Machine m(6);
    m.add("spread", "", 3);
    m.add("named", "1,3", 2);
    m.make();
    CHECK(m.cores_of(0) == List{2, 4, 5});
    m.add("next", "", 1);
    m.make();
    CHECK(m.cores_of(2) == List{0});  // idle, if not alone
    CHECK(m.plan->use_of(0) == CoreUse::shared);
    m.add("last", "", 2);
    m.make();
    CHECK(m.cores_of(3) == List{2, 4});  // shared among those that named nothing: named cores stay whole
    CHECK(m.plan->use_of(1) == CoreUse::dedicated);
}

TEST_CASE("where every core is named, a VM without a cpuset shares the least loaded of them") {
    Machine m(3);
    m.add("all", "0-2", 2);
    m.add("second", "1", 1);
    m.add("guest", "", 1);
    m.make();
    CHECK(m.cores_of(2) == List{2});  // named, but nobody is there
    m.add("another", "", 2);
    m.make();
    CHECK(m.cores_of(3) == List{2, 0});
}

TEST_CASE("a machine with one core shares it") {
    Machine m(1);
    m.add("a", "", 1);
    m.add("b", "0", 2);
    m.make();
    CHECK(m.cores_of(0) == List{0});
    CHECK(m.cores_of(1) == List{0, 0});
    CHECK(m.plan->use_of(0) == CoreUse::shared);
    CHECK_THAT(m.printed(), Catch::Contains("   0       0 shared    console a/0 b/0 b/1\n"));
}

TEST_CASE("VMs that start by themselves have the first choice of cores") {
    Machine m(3);
    m.add("later", "", 1).autostart = false;
    m.add("now", "", 2);
    m.make();
    CHECK(m.cores_of(1) == List{1, 2});
    CHECK(m.cores_of(0) == List{0});
}

TEST_CASE("a core that does not exist refuses the VM and says which there are") {
    Machine m(4);
    m.add("a", "3-5", 1);
    m.add("b", "4", 1);
    m.add("c", "255", 1);
    m.add("d", "3", 1);
    m.make();
    CHECK(m.plan->vm(0).verdict == PlanVerdict::refused);
    CHECK(m.reason(0) == "cores 4-5 do not exist: this machine has cores 0-3; change cpuset.cpus");
    CHECK(m.reason(1) == "core 4 does not exist: this machine has cores 0-3; change cpuset.cpus");
    CHECK(m.reason(2) == "core 255 does not exist: this machine has cores 0-3; change cpuset.cpus");
    CHECK(m.plan->vm(3).verdict == PlanVerdict::accepted);
    CHECK(m.plan->use_of(3) == CoreUse::dedicated);  // the refused VM named it in vain
    Machine one(1);
    one.add("a", "1", 1);
    one.make();
    CHECK(one.reason(0) == "core 1 does not exist: this machine has core 0 only; change cpuset.cpus");
}

TEST_CASE("a core that is offline refuses the VM that names it, with its reason, and no vCPU is put there") {
    Machine m(4);
    m.cores.offline(2, "it did not answer within 100 ms");
    m.cores.offline(3, "");
    m.add("a", "1-2", 2);
    m.add("b", "3", 1);
    m.add("c", "", 3);
    m.make();
    CHECK(m.reason(0) == "core 2 is offline: it did not answer within 100 ms; change cpuset.cpus");
    CHECK(m.reason(1) == "core 3 is offline: it did not start; change cpuset.cpus");
    CHECK(m.cores_of(2) == List{1, 0, 1});
    CHECK(m.plan->use_of(2) == CoreUse::offline);
    CHECK_THAT(m.printed(), Catch::Contains("   2       4 offline   it did not answer within 100 ms\n"));
}

TEST_CASE("what names every core there could be is refused in a sentence that fits") {
    Machine m(1);
    std::string odd = "1";
    for (unsigned i = 3; i < 256; i += 2) odd += "," + std::to_string(i);
    m.add("a", odd, 1);
    m.make();
    CHECK_THAT(m.reason(0),
               Catch::EndsWith("...; change cpuset.cpus") || Catch::Contains("... do not exist"));
    CHECK_FALSE(m.plan->vm(0).reason.truncated());
    m.cores.infos.resize(256, {.apic_id = 0, .online = false, .reason = std::string(120, 'r').c_str()});
    m.make();
    CHECK_THAT(m.reason(0), Catch::EndsWith("; change cpuset.cpus"));
}

TEST_CASE("a machine none of whose cores is online refuses everything") {
    Machine m(2);
    m.cores.offline(0, "odd");
    m.cores.offline(1, "odd");
    m.add("a", "", 1);
    m.make();
    CHECK(m.reason(0) == "no core is online; report the machine");
    Machine none(0);
    none.add("a", "", 1);
    none.add("b", "0", 1);
    none.make();
    CHECK(none.plan->vm(0).verdict == PlanVerdict::refused);
    CHECK(none.plan->vm(1).verdict == PlanVerdict::refused);
}

TEST_CASE("impossible configurations are refused whatever they hold") {
    Machine m(4);
    m.add("broken", "", 1).refused = true;
    m.add("many", "", 17);
    m.add("none", "", 0);
    m.add("absurd", "", ~0U);
    m.add("huge", "", 1, ~u64{0});
    m.add("tiny", "", 1, 0);
    m.add("large", "", 1, 16 * 1024 * gib);
    m.add("no-kernel", "", 1).kernel.clear();
    m.add("good", "1", 1);
    m.make();
    CHECK(m.reason(0) == "its configuration is wrong: see dmesg");
    CHECK(m.reason(1) == "vcpus = 17 is out of range; a VM has 1 to 16");
    CHECK(m.reason(2) == "vcpus = 0 is out of range; a VM has 1 to 16");
    CHECK_THAT(m.reason(3), Catch::Contains("4294967295"));
    CHECK_THAT(m.reason(4), Catch::Contains("18446744073709551615 bytes"));
    CHECK_THAT(m.reason(5), Catch::Contains("memory.max is 0 bytes"));
    CHECK(m.reason(6) ==
          "it needs 16777218 MiB (16777216 MiB and overhead), the machine has 1024 MiB for "
          "VMs; lower memory.max");
    CHECK(m.reason(7) == "it has no kernel; set kernel = \"NAME OF A MODULE\"");
    CHECK(m.plan->vm(8).verdict == PlanVerdict::accepted);
}

TEST_CASE("a module that is not there refuses the VM and is named") {
    Machine m(2);
    m.add("kernel", "", 1).kernel = "bzImage";
    m.add("initrd", "", 1).initrd = "initrd.img";
    VmConfig& modules = m.add("modules", "", 1);
    REQUIRE(modules.add_module("tool --with words"));
    REQUIRE(modules.add_module("toolbox"));
    VmConfig& good = m.add("good", "", 1);
    good.initrd = "initrd";
    REQUIRE(good.add_module("tool tool"));
    m.add("rude", "", 1).kernel = "\x1b[2J";
    m.make();
    CHECK(m.reason(0) == "kernel \"bzImage\" is not among the boot modules; add it to the GRUB entry");
    CHECK(m.reason(1) == "initrd \"initrd.img\" is not among the boot modules; add it to the GRUB entry");
    CHECK(m.reason(2) == "module \"toolbox\" is not among the boot modules; add it to the GRUB entry");
    CHECK(m.plan->vm(3).verdict == PlanVerdict::accepted);
    CHECK(m.reason(4).find('\x1b') == std::string::npos);
    CHECK_THAT(m.printed(), Catch::Contains("tool                               1048576 modules good\n"));
}

TEST_CASE("memory is given in order, and who does not fit beside those before is not started") {
    Machine m(4, 512 * mib);
    m.add("first", "", 1, 256 * mib);
    m.add("second", "", 1, 256 * mib);
    m.add("by-hand", "", 1, 480 * mib).autostart = false;
    m.add("third", "", 1, 200 * mib);
    m.make();
    CHECK(m.plan->vm(0).verdict == PlanVerdict::accepted);
    CHECK(m.plan->vm(1).verdict == PlanVerdict::no_memory);
    CHECK(m.reason(1) ==
          "out of memory: it needs 258 MiB, 254 MiB are free; give it less, or destroy another VM");
    CHECK(m.plan->vm(1).placed());
    CHECK(m.plan->vm(2).verdict == PlanVerdict::accepted);
    CHECK(m.plan->vm(2).memory.empty());
    CHECK(m.plan->vm(3).verdict == PlanVerdict::accepted);
    CHECK(m.units->free_units() == 256);  // all put back
    CHECK_THAT(m.printed(), Catch::Contains("\nleft                        52M\n"));
}

TEST_CASE("what the machine can never hold is refused, even if nobody starts it") {
    Machine m(4, 512 * mib);
    m.add("exact", "", 1, 510 * mib).autostart = false;
    m.add("over", "", 1, 512 * mib).autostart = false;
    m.make();
    CHECK(m.plan->vm(0).verdict == PlanVerdict::accepted);
    CHECK(m.plan->vm(1).verdict == PlanVerdict::refused);
    CHECK(m.reason(1) ==
          "it needs 514 MiB (512 MiB and overhead), the machine has 512 MiB for VMs; lower memory.max");
}

TEST_CASE("memory in more pieces than a VM may have is as good as none") {
    Machine m(2, 64 * mib);
    for (u64 i = 1; i < 8; ++i) REQUIRE(m.units->add_usable(HostPhysical(i * 256 * mib), 64 * mib));
    m.add("four", "", 1, 4 * 64 * mib);
    m.add("five", "", 1, 5 * 64 * mib).autostart = false;
    m.make();
    CHECK(m.plan->vm(0).memory.size() == 5);
    CHECK(m.plan->vm(1).verdict == PlanVerdict::refused);
    CHECK_THAT(m.reason(1), Catch::Contains("322 MiB in 5 pieces at most; 512 MiB are free, but in smaller"));
    CHECK_FALSE(m.plan->vm(1).reason.truncated());
}

TEST_CASE("starting VMs in order yields the memory that was planned") {
    Machine m(4, 3 * gib - 16 * mib);
    REQUIRE(m.units->add_usable(HostPhysical(4 * gib), 5 * gib));
    for (const u64 size : {u64{5} * gib, 700 * mib, gib, 2 * mib, 30 * mib}) m.add("vm", "", 1, size);
    m.make();
    CHECK(m.plan->vm(0).memory.size() >= 2);
    for (usize i = 0; i < m.vms.size(); ++i) {
        const auto real = take_memory(*m.units, m.plan->vm(i).need);
        REQUIRE(real);
        REQUIRE(real->size() == m.plan->vm(i).memory.size());
        for (usize run = 0; run < real->size(); ++run) CHECK((*real)[run] == m.plan->vm(i).memory[run]);
    }
}

TEST_CASE("a VM that is made later is placed beside those that are there") {
    Machine m(4, 256 * mib);
    m.add("a", "1", 1, 64 * mib);
    m.add("b", "", 1, 64 * mib);
    m.make();
    CHECK(m.cores_of(1) == List{2});
    const auto held = take_memory(*m.units, m.plan->vm(0).need);
    REQUIRE(held);
    VmConfig& late = m.add("late", "", 2, 32 * mib);
    CHECK(m.plan->place(2, late).verdict == PlanVerdict::accepted);
    CHECK(m.cores_of(2) == List{3, 0});
    CHECK(m.cores_of(1) == List{2});
    VmConfig& large = m.add("large", "3", 1, 200 * mib);
    CHECK(m.plan->place(3, large).verdict == PlanVerdict::no_memory);
    CHECK(m.reason(3) ==
          "out of memory: it needs 202 MiB, 190 MiB are free; give it less, or destroy another VM");
    REQUIRE(m.units->free(*held));
    CHECK(m.plan->place(3, large).verdict == PlanVerdict::accepted);
    VmConfig& impossible = m.add("impossible", "9", 1);
    CHECK(m.plan->place(63, impossible).verdict == PlanVerdict::refused);
    m.check_invariants();
    for (const usize i : {0, 1, 2, 3, 63}) m.plan->forget(i);
    m.check_invariants();
    for (unsigned core = 0; core < 4; ++core) CHECK(m.plan->use_of(core) == CoreUse::free);
    CHECK(m.units->free_units() == 128);
    m.plan->forget(5);
    m.plan->forget(64);
}

TEST_CASE("placing a VM again replaces what was planned for it") {
    Machine m(4);
    VmConfig& a = m.add("a", "1-2", 2);
    m.make();
    a.cpus = parse_cpu_list("3").value();
    m.plan->place(0, a);
    m.check_invariants();
    CHECK(m.cores_of(0) == List{3, 3});
    CHECK(m.plan->use_of(1) == CoreUse::free);
    a.kernel = "gone";
    m.plan->place(0, a);
    m.check_invariants();
    CHECK(m.plan->vm(0).verdict == PlanVerdict::refused);
    CHECK(m.plan->use_of(3) == CoreUse::free);
}

TEST_CASE("a changed cpuset moves the vCPUs, unless it cannot be") {
    Machine m(4);
    m.cores.offline(3, "broken");
    VmConfig& a = m.add("a", "1-2", 2);
    m.make();
    a.cpus = parse_cpu_list("0,2").value();
    REQUIRE(m.plan->place_cores(0));
    CHECK(m.cores_of(0) == List{0, 2});
    a.cpus = parse_cpu_list("3").value();
    const auto offline = m.plan->place_cores(0);
    REQUIRE_FALSE(offline);
    CHECK(offline.error().text == "core 3 is offline: broken; change cpuset.cpus");
    CHECK(m.cores_of(0) == List{0, 2});
    a.cpus = {};
    REQUIRE(m.plan->place_cores(0));
    CHECK(m.cores_of(0) == List{1, 2});
    CHECK_FALSE(m.plan->place_cores(1));
    CHECK_FALSE(m.plan->place_cores(64));
    m.check_invariants();
}

TEST_CASE("a vCPU can be pinned to the least loaded of some cores") {
    Machine m(4);
    m.add("a", "1", 2);
    m.add("b", "2", 1);
    m.make();
    REQUIRE(m.plan->pin(0, 1, parse_cpu_list("1-3").value()));
    CHECK(m.cores_of(0) == List{1, 3});
    REQUIRE(m.plan->pin(0, 1, parse_cpu_list("2-3").value()));
    CHECK(m.cores_of(0) == List{1, 3});  // stays where it may
    REQUIRE(m.plan->pin(0, 0, parse_cpu_list("2").value()));
    CHECK(m.plan->use_of(2) == CoreUse::shared);
    CHECK_FALSE(m.plan->pin(0, 2, parse_cpu_list("1").value()));
    CHECK_FALSE(m.plan->pin(2, 0, parse_cpu_list("1").value()));
    CHECK_FALSE(m.plan->pin(~usize{0}, 0, parse_cpu_list("1").value()));
    CHECK_FALSE(m.plan->pin(0, 0, CpuSet()));
    CHECK_FALSE(m.plan->pin(0, 0, parse_cpu_list("4").value()));
    m.check_invariants();
}

TEST_CASE("64 VMs on 64 cores have one each, but for core 0's") {
    Machine m(64, 16 * gib);
    for (unsigned i = 0; i < 64; ++i) m.add("vm" + std::to_string(i), "", 1);
    m.make();
    std::set<unsigned> used;
    for (usize i = 0; i < 64; ++i) {
        REQUIRE(m.plan->vm(i).verdict == PlanVerdict::accepted);
        used.insert(m.cores_of(i)[0]);
    }
    CHECK(used.size() == 64);
    CHECK(m.cores_of(63) == List{0});
    for (unsigned core = 1; core < 64; ++core) CHECK(m.plan->use_of(core) == CoreUse::dedicated);
}

TEST_CASE("64 VMs of 16 vCPUs fill 256 cores evenly; more VMs than that are not looked at") {
    Machine m(256, 64 * gib);
    for (unsigned i = 0; i < 80; ++i) m.add("vm" + std::to_string(i), "", 16);
    m.make();
    for (unsigned core = 0; core < 256; ++core) CHECK(m.plan->vcpus_on(core) == 4);
    Machine one(1, 64 * gib);
    for (unsigned i = 0; i < 64; ++i) one.add("a-name-of-thirty-one-characters", "0", 16);
    one.make();
    CHECK(one.plan->vcpus_on(0) == 1024);
    Machine beyond(1000, 64 * gib);
    beyond.add("a", "255", 1);
    beyond.make();
    CHECK(beyond.plan->core_count() == 256);
    CHECK(beyond.cores_of(0) == List{255});
}

TEST_CASE("the plan is printed whole") {
    Machine m(4, 512 * mib);
    m.cores.offline(3, "it did not answer within 100 ms");
    VmConfig& web = m.add("web", "1-2", 2, 256 * mib);
    web.initrd = "initrd";
    VmConfig& db = m.add("db", "2", 2, 128 * mib);
    db.gang = true;
    m.add("spare", "", 1, 64 * mib).autostart = false;
    m.add("old", "3", 1);
    m.add("big", "", 1, 300 * mib);
    m.make();
    CHECK(m.printed() ==
          R"(partition plan: 5 VMs, 4 cores (3 online), 512 MiB for VMs
CORE    APIC USE       BY
   0       0 shared    console spare/0 big/0
   1       2 dedicated web/0
   2       4 shared    web/1 db/0 db/1
   3       6 offline   it did not answer within 100 ms
VM          PLAN      VCPUS    MEMORY CORES OF VCPU 0, 1, ...
web         starts        2      256M 1 2
db          starts        2      128M 2 2
spare       by hand       1       64M 0
old         refused
big         no memory     1      300M 0
MEMORY      FOR            SIZE RANGE
web         overhead         2M 0x1000000-0x11fffff
web         RAM            256M 0x1200000-0x111fffff
db          overhead         2M 0x11200000-0x113fffff
db          RAM            128M 0x11400000-0x193fffff
left                       124M
MODULE                               BYTES USED BY
vmlinuz                            1048576 web db spare old big
initrd                             1048576 web
tool                               1048576 -
DEVICES     each VM has a standard virtual PC of its own; no device of this machine is given away
note db: cpu.gang needs a core for each vCPU; give it more cores
refused old: core 3 is offline: it did not answer within 100 ms; change cpuset.cpus
not started big: out of memory: it needs 302 MiB, 124 MiB are free; give it less, or destroy another
                 VM
)");
}

TEST_CASE("random VM sets, created and forgotten, never break the plan") {
    std::mt19937 random(4);
    const auto up_to = [&](unsigned n) { return std::uniform_int_distribution<unsigned>(0, n)(random); };
    for (unsigned round = 0; round < 60; ++round) {
        Machine m(1 + up_to(40), (1 + up_to(64)) * 64 * mib);
        for (unsigned core = 0; core < m.cores.infos.size(); ++core) {
            if (core != 0 && up_to(9) == 0) m.cores.offline(core, "unlucky");
        }
        const auto random_vm = [&](unsigned number) -> VmConfig& {
            VmConfig& vm = m.add("vm" + std::to_string(number), "", up_to(18), up_to(300) * mib);
            for (unsigned n = up_to(3); n > 0; --n) vm.cpus.add(up_to(45));
            vm.autostart = up_to(3) != 0;
            vm.gang = up_to(1) != 0;
            if (up_to(20) == 0) vm.initrd = "missing";
            return vm;
        };
        const unsigned count = up_to(64);
        for (unsigned i = 0; i < count; ++i) random_vm(i);
        m.make();
        const u64 free = m.units->free_units();
        CHECK(free == m.units->managed_units());
        for (unsigned step = 0; step < 30; ++step) {
            const usize index = up_to(63);
            if (up_to(1) == 0) {
                m.plan->forget(index);
            } else {
                m.plan->place(index, random_vm(100 + step));
            }
        }
        m.check_invariants();
        CHECK(m.units->free_units() == free);
    }
}
