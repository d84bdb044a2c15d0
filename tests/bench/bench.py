#!/usr/bin/env python3
"""What operations cost a guest under Bulkhead, in instructions: runs the guest of exits.asm on the emulators, where the
TSC counts instructions and the figures repeat exactly, and prints them beside those of KVM and Xen and the aims.

The machine has one processor, which the VM has for itself: with more, the emulators' TSC counts what the others do
too."""

import argparse
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

import support  # noqa: E402

FIGURES = os.path.join(ROOT, "tests", "bench", "figures.json")
GUEST = os.path.join(support.BUILD, "tests", "bench", "exits.bin")
VM_MIB = 64
CONFIG = f"""\
[vm.bench]
kernel = "bench"
memory.max = "{VM_MIB}M"
"""
TOLERANCE = 0.02

# The machines, and options for them. When QEMU's processor halts, time jumps to the next timer instead of passing.
# Bochs delivers virtual interrupts at the wrong time when a host interrupt is about, so that Bulkhead does without there;
# here, where none is, it shows what a processor makes of them. "skylake-soft" is without.
MACHINES = {"skylake": {"options": "virtual-interrupts=on"}, "skylake-soft": {}, "epyc": {"extra": ["-icount", "sleep=off"]}}
TITLES = {"skylake": "VT-x (Bochs, corei7_skylake_x)",
          "skylake-soft": "VT-x without virtual interrupt delivery (Bochs, corei7_skylake_x)",
          "epyc": "AMD-V (QEMU, EPYC without nRIP)"}

# Of each operation: KVM (Linux 6.1), Xen (4.17, HVM) and the aim. The two were measured by a guest of the same kind on
# the same emulators, under VT-x on corei7_haswell_4770. An aim of "no exit" is met by a handful of instructions.
NO_EXIT = "no exit"
REFERENCE = {
    "skylake": {
        "cpuid": (1064, 896, 150), "hypercall": (1099, 837, 150), "rdmsr": (1177, 793, 150), "wrmsr": (None, None, 150),
        "xsetbv": (None, None, 150),
        "in.pic": (1351, 1278, 200), "out.pic": (1351, 1278, 200), "in.pit": (1351, 1278, 200),
        "in.uart": (7396, 1270, 200), "out.uart": (7396, 1270, 200), "in.nothing": (None, None, 200),
        "outsb.16": (181271, 32767, 600), "insb.16": (None, None, 600),
        "mmio.io_apic.read": (7874, 14658, 400), "mmio.io_apic.write": (7874, 14658, 400),
        "mmio.hole.read": (9979, 14266, 400), "mmio.hole.write": (None, None, 400),
        "touch": (6905, 20, NO_EXIT), "page_fault": (None, None, NO_EXIT), "cr0.wp.twice": (3, 1068, NO_EXIT),
        "cr4.pge.twice": (3, 3, NO_EXIT), "cr3": (None, None, NO_EXIT), "dr7": (None, None, NO_EXIT),
        "wrmsr.fs_base": (None, None, NO_EXIT), "rdtsc": (None, None, NO_EXIT), "pause": (None, None, NO_EXIT),
        "invlpg": (None, None, NO_EXIT), "cr8": (None, None, NO_EXIT), "xapic.read": (None, None, NO_EXIT),
        "xapic.tpr": (None, None, NO_EXIT), "xapic.eoi": (8034, 3, NO_EXIT), "xapic.timer": (8671, 1603, None),
        "xapic.self_ipi": (25791, 22, NO_EXIT), "timer.hlt": (1725, 3192, 300), "timer.spin": (1705, 581, 300),
        "x2apic.read": (None, None, NO_EXIT), "x2apic.tpr": (None, None, NO_EXIT), "x2apic.eoi": (1275, 4, NO_EXIT),
        "x2apic.self_ipi": (None, None, NO_EXIT), "spin.lost": (133990, 31019, 0),
    },
    "epyc": {
        "cpuid": (3060, 5766, 200), "hypercall": (3318, 5832, 200), "rdmsr": (3135, 5676, 200),
        "wrmsr": (None, None, 200), "xsetbv": (None, None, 200),
        "in.pic": (1684, 1171, 250), "out.pic": (1684, 1171, 250), "in.pit": (1684, 1171, 250),
        "in.uart": (3545, 1162, 250), "out.uart": (3545, 1162, 250), "in.nothing": (None, None, 250),
        "outsb.16": (116103, 28691, 800), "insb.16": (None, None, 800),
        "mmio.io_apic.read": (4011, 19510, 500), "mmio.io_apic.write": (4011, 19510, 500),
        "mmio.hole.read": (6022, 15412, 500), "mmio.hole.write": (None, None, 500),
        "touch": (4263, 20, NO_EXIT), "page_fault": (None, None, NO_EXIT), "cr0.wp.twice": (4803, 13773, NO_EXIT),
        "cr4.pge.twice": (7228, 14640, NO_EXIT), "cr3": (None, None, NO_EXIT), "dr7": (None, None, NO_EXIT),
        "wrmsr.fs_base": (None, None, NO_EXIT), "rdtsc": (None, None, NO_EXIT), "pause": (None, None, NO_EXIT),
        "invlpg": (None, None, NO_EXIT), "cr8": (None, None, NO_EXIT), "xapic.eoi": (3822, 18706, 400),
        "xapic.timer": (4525, 19506, None), "xapic.self_ipi": (13374, 56623, 1000), "timer.hlt": (484, 3377, 350),
        "timer.spin": (1656, 394, 350), "x2apic.eoi": (3228, 5813, 400), "spin.lost": (18915, 7312, 0),
    },
}
MEANING = {
    "rdmsr": "RDMSR of IA32_APIC_BASE", "wrmsr": "WRMSR of IA32_APIC_BASE", "in.nothing": "IN, no device",
    "outsb.16": "REP OUTSB, 16 bytes", "insb.16": "REP INSB, 16 bytes", "mmio.movsb.16": "REP MOVSB, 16 bytes of a hole",
    "mmio.stosb.16": "REP STOSB, 16 bytes to a hole", "touch": "first touch of a page", "page_fault": "#PF and IRETQ",
    "cr0.wp.twice": "CR0.WP toggled twice", "cr4.pge.twice": "CR4.PGE toggled twice",
    "xapic.timer": "local APIC timer armed", "xapic.self_ipi": "self-IPI and its EOI",
    "x2apic.self_ipi": "self-IPI and its EOI", "timer.hlt": "timer interrupt out of HLT: latency",
    "timer.spin": "timer interrupt in a loop: lost", "spin.lost": "lost in 20 M instructions",
}


def measure(machine):
    """{operation: [minimum, median]} and what else the machine tells, {name: number}."""
    with support.System(machine.partition("-")[0], [(GUEST, "bench")], CONFIG, memory=256, **MACHINES[machine]) as system:
        system.prompt()
        # Until it is over nothing is typed, which the host would have to look at.
        system.expect("VM bench stopped: powered off|BENCH-FAILED", 300)
        system.machine.send("console bench\r")
        output = support.plain(system.expect(r"(?s)attached to bench(.*?)BENCH-(END|FAILED)", 60)[0])
        if "BENCH-FAILED" in output:
            raise AssertionError(f"{machine}: an operation made the processor raise an exception\n{output}")
        system.detach()
        figures = {name: [int(minimum), int(median)]
                   for name, minimum, median in re.findall(r"BENCH (\S+) (-?\d+) (-?\d+)", output)}
        memory = system.json("mem")
        vm = next(vm for vm in memory["vms"] if vm["vm"] == "bench")
        return figures, {"vm_overhead_bytes": vm["overhead_bytes"], "vm_overhead_used_bytes": vm["overhead_used_bytes"]}


def start_of_first_guest(machine):
    """Instructions from the boot loader's jump to the first entry into a guest, with little memory to be cleared and
    little to be said, and how many of them pass in measuring the TSC by another clock."""
    config = '[vm.halt]\nkernel = "halt"\nmemory.max = "4M"\n'
    with support.System(machine.partition("-")[0], [(support.guest("halt"), "halt")], config, memory=256,
                        **{**MACHINES[machine], "options": "loglevel=error"}) as system:
        system.prompt()
        log = system.command("dmesg")
    hertz = round(float(re.search(r"TSC: ([\d.]+) MHz", log)[1]) * 1e6)
    entered = int(re.search(r"firmware and boot loader took (\d+) us", log)[1])
    first, last = (round(float(re.search(rf"\[ *([\d.]+)\] {words}", log)[1]) * 1e6)
                   for words in ("firmware and boot loader took", "VM halt started"))
    return {"start_instructions": (last - entered) * hertz // 1_000_000,
            "start_up_to_clock_instructions": (first - entered) * hertz // 1_000_000}


def image_sizes():
    """Text with constants, initialised data, and what the hypervisor has of memory in all."""
    lines = subprocess.run(["size", support.IMAGE], check=True, capture_output=True, text=True).stdout.splitlines()
    text, data, bss = (int(word) for word in lines[1].split()[:3])
    return {"text_bytes": text, "data_bytes": data, "fixed_memory_bytes": text + data + bss}


def met(minimum, aim):
    return minimum <= (20 if aim == NO_EXIT else aim)


def shown(value):
    return "" if value is None else value if isinstance(value, str) else f"{value:,}"


def print_table(machine, figures, other):
    print(f"\n{TITLES[machine]}\n{'operation':<20}{'minimum':>10}{'median':>10}{'aim':>10}   {'KVM':>10}{'Xen':>10}")
    for name, (minimum, median) in figures.items():
        kvm, xen, aim = REFERENCE[machine.partition("-")[0]].get(name, (None, None, None))
        mark = " " if aim is None else "=" if met(minimum, aim) else "!"
        print(f"{name:<20}{shown(minimum):>10}{shown(median):>10}{shown(aim):>10} {mark} {shown(kvm):>10}{shown(xen):>10}"
              f"  {MEANING.get(name, '')}".rstrip())
    allowed = (VM_MIB << 20) * 3 // 1000 + (64 << 10)
    print(f"a VM of {VM_MIB} MiB costs "
          f"{shown(other['vm_overhead_used_bytes'])} bytes beyond its RAM (aim {shown(allowed)}), "
          f"{shown(other['vm_overhead_bytes'])} are set aside")
    print(f"from the boot loader to the first guest: {shown(other['start_instructions'])} instructions (aim 5,000,000), the "
          f"first {shown(other['start_up_to_clock_instructions'])} until the TSC's frequency is known")


def compare(machine, figures, kept):
    """Says what differs from the figures kept; True if nothing has grown beyond the tolerance or is missing."""
    good = True
    for name in kept:
        if name not in figures:
            print(f"{machine}: {name} was not measured any more")
            good = False
    for name, now in figures.items():
        if name not in kept:
            print(f"{machine}: {name} is new; keep it by scripts/bench --update")
            continue
        before = kept[name]
        change = f"{before[0]:,} (median {before[1]:,}) -> {now[0]:,} ({now[1]:,})"
        if any(new > old + abs(old) * TOLERANCE for old, new in zip(before, now)):
            print(f"{machine}: {name} has grown: {change}")
            good = False
        elif any(new < old - abs(old) * TOLERANCE for old, new in zip(before, now)):
            print(f"{machine}: {name} has shrunk: {change}; keep it by scripts/bench --update")
    return good


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machines", nargs="*", metavar="MACHINE", help=f"of {' '.join(MACHINES)} (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE too")
    parser.add_argument("--check", action="store_true", help=f"compare with {os.path.relpath(FIGURES, ROOT)}; exit 1 where "
                        f"a figure has grown by more than {TOLERANCE:.0%}%")
    parser.add_argument("--update", action="store_true", help="keep these figures there")
    options = parser.parse_args()
    if unknown := set(options.machines) - set(MACHINES):
        parser.error(f"unknown machine {' '.join(unknown)}")

    measured, good = {}, True
    image = image_sizes()
    for machine in options.machines or MACHINES:
        figures, other = measure(machine)
        other |= start_of_first_guest(machine)
        measured[machine] = {"ticks": figures, **other}
        print_table(machine, figures, other)
    print(f"\n= within the aim, ! beyond; image {shown(image['text_bytes'] + image['data_bytes'])} bytes of text and data "
          f"(aim {shown(512 << 10)}), {shown(image['fixed_memory_bytes'])} of memory in all (aim {shown(8 << 20)})")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machines": measured, "image": image}, file, indent=1)
            file.write("\n")
    kept = {}
    if os.path.exists(FIGURES):
        with open(FIGURES) as file:
            kept = json.load(file)
    if options.check:
        good = all([compare(machine, measured[machine]["ticks"], kept.get(machine, {})) for machine in measured])
        print("nothing has grown" if good else "FAILED")
    if options.update:
        kept.update({machine: result["ticks"] for machine, result in measured.items()})
        with open(FIGURES, "w") as file:
            machines = (f' "{machine}": {{\n' + ",\n".join(f"  {json.dumps(name)}: {json.dumps(pair)}" for name, pair in ticks.items()) +
                        "\n }" for machine, ticks in sorted(kept.items()))
            file.write("{\n" + ",\n".join(machines) + "\n}\n")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (support.MachineError, AssertionError) as error:
        sys.exit(f"scripts/bench: {error}")
