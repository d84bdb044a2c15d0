#!/usr/bin/env python3
"""Whether processors wait for each other when they take exits at the same time: the round trip of an operation on one
core alone; on eight cores with a VM each, which share nothing; and on eight cores with one VM of eight vCPUs. And how
long a vCPU waits until others have answered its interrupt: minimum and median of 256.
usage: smp.py [MACHINE [HOST-OPTIONS]]

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
# What is waited for: the guest's number for it, how many vCPUs.
ANSWERS = {"IPI to a vCPU that spins": "02", "IPI to a vCPU that halts": "12", "TLB shootdown on 1 other vCPU": "22",
           "TLB shootdown on 7 other vCPUs": f"2{CORES}"}
VM = """\
[vm.{name}]
kernel = "{kernel}"
memory.max = "8M"
vcpus = {vcpus}
cpuset.cpus = "{cpus}"
autostart = false
"""
SINGLE = [f"one{core}" for core in range(1, CORES + 1)]
CONFIG = "".join(VM.format(name=name, kernel="smp_exits", vcpus=1, cpus=core + 1) for core, name in enumerate(SINGLE))
CONFIG += VM.format(name="many", kernel="smp_exits", vcpus=CORES, cpus=f"1-{CORES}")
CONFIG += "".join(VM.format(name=f"wait{vcpus}", kernel="smp_latency", vcpus=vcpus, cpus=f"1-{vcpus}")
                  for vcpus in (2, CORES))
MODULES = [(support.guest(name), name) for name in ("smp_exits", "smp_latency")]


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


def wait_for_answers(system, words):
    vm = f"wait{words[1]}"
    start(system, vm, words)
    system.attach(vm)
    samples = sorted(int(ticks) for ticks in re.findall(rb"sample (\d+)\r\n", system.expect(r"(?s).*smp_latency: end")[0]))
    system.detach()
    check(len(samples) == 256, "256 samples")
    destroy(system, [vm])
    return samples[0], samples[len(samples) // 2]


def main(machine="skylake", options=""):
    rows = []
    with System(machine, MODULES, CONFIG, options=options, memory=256, cpus=CORES + 1) as system:
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
        print(f"\n{'waiting for answers':32} {'minimum':>10} {'median':>10}")
        for what, words in ANSWERS.items():
            least, median = wait_for_answers(system, words)
            print(f"{what:32} {least:>10} {median:>10}", flush=True)
    print(f"\n{'operation':24} {'one core':>10} {f'{CORES} VMs':>10} {f'1 VM of {CORES}':>10}")
    for operation, alone, apart, together in rows:
        print(f"{operation:24} {alone:>10} {apart:>10} {together:>10}")
    for operation, _, apart, together in rows[:FREE]:
        check(together <= apart * 1.02, f"{operation}: {CORES} vCPUs of one VM do not wait for each other")


if __name__ == "__main__":
    support.main(main)
