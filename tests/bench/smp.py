#!/usr/bin/env python3
"""Whether processors wait for each other when they take exits at the same time: the round trip of an operation on one
core alone; on eight cores with a VM each, which share nothing; and on eight cores with one VM of eight vCPUs.
usage: smp.py [MACHINE]

Bochs only (skylake, ryzen): QEMU runs one processor after the other for long spans when it counts instructions. Bochs
advances the TSC by the mean of what its processors have executed, 16 for one that halts: so the first figure is lower
than the exact one (bench.py has that), and the other two are comparable, to each other and to nothing else."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

import support  # noqa: E402
from support import System, check  # noqa: E402

CORES = 8
OPERATIONS = ("CPUID", "RDMSR", "local APIC timer", "nested fault (a hole)", "port of a shared chip")
FREE = 4  # operations that are to wait for nobody
VM = """\
[vm.{name}]
kernel = "smp_exits"
memory.max = "8M"
vcpus = {vcpus}
cpuset.cpus = "{cpus}"
autostart = false
"""
SINGLE = [f"one{core}" for core in range(1, CORES + 1)]
CONFIG = "".join(VM.format(name=name, vcpus=1, cpus=core + 1) for core, name in enumerate(SINGLE))
CONFIG += VM.format(name="many", vcpus=CORES, cpus=f"1-{CORES}")


def start(system, vm, words):
    system.command(f"set {vm} cmdline {words}")
    check(f"VM {vm} started" in system.command(f"start {vm}"), f"{vm} starts")


def figure(system, vm):
    """The second that it prints: the first may be of a time when others were still starting."""
    system.attach(vm)
    for _ in range(2):
        match = system.expect(r"smp_exits: (\d+)\r\n")
    system.detach()
    return int(match[1])


def destroy(system, vms):
    for vm in vms:
        check(f"VM {vm} was destroyed" in system.command(f"destroy {vm}"), f"{vm} is gone")


def main(machine="skylake"):
    rows = []
    with System(machine, [(support.guest("smp_exits"), "smp_exits")], CONFIG, memory=256, cpus=CORES + 1) as system:
        system.prompt()
        for number, operation in enumerate(OPERATIONS):
            start(system, SINGLE[0], f"{number}1")
            alone = figure(system, SINGLE[0])
            destroy(system, SINGLE[:1])
            for vm in reversed(SINGLE):
                start(system, vm, f"{number}1")
            apart = figure(system, SINGLE[0])
            destroy(system, SINGLE)
            start(system, "many", f"{number}{CORES}")
            together = figure(system, "many")
            destroy(system, ["many"])
            rows.append((operation, alone, apart, together))
            print(f"{operation}: alone {alone}, {CORES} VMs {apart}, one VM of {CORES} {together}", flush=True)
    print(f"\n{'operation':24} {'one core':>10} {f'{CORES} VMs':>10} {f'1 VM of {CORES}':>10}")
    for operation, alone, apart, together in rows:
        print(f"{operation:24} {alone:>10} {apart:>10} {together:>10}")
    for operation, _, apart, together in rows[:FREE]:
        check(together <= apart * 1.02, f"{operation}: {CORES} vCPUs of one VM do not wait for each other")


if __name__ == "__main__":
    support.main(main)
