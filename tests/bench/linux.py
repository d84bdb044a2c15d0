#!/usr/bin/env python3
"""Debian's kernel bare and under Bulkhead on the same emulated machine: what a fixed piece of work costs in instructions
(system calls, page faults, processes, pipes, sorting, with the kernel's timer running), and when the kernel says it
reached its first process.
usage: linux.py [--json FILE] [MACHINE...]        (skylake epyc)

The work's figures are by the TSC, which counts instructions in both emulators. The kernel's clock begins once it has taken
the TSC's rate over from its command line, the same in both. The bare machine has more devices to look for than Bulkhead's
virtual PC: boot times of the two say how long one waits, not what virtualisation costs."""

import argparse
import json
import os
import re
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

import support  # noqa: E402
from resets import initramfs  # noqa: E402
from support import System, check  # noqa: E402

CONFIG = """\
[vm.linux]
kernel = "kernel"
initrd = "initrd"
memory.max = "256M"
cmdline = "{words}"
autostart = false
"""
# The TSC's rate in kHz: what the emulator makes of its instructions. And what both kernels are to leave alone: bare in Bochs
# the first processor's IA32_MISC_ENABLE makes the kernel do without string instructions, each repetition of which counts as
# an instruction there, and it finds no XSAVE.
KHZ = {"skylake": 100_000, "epyc": 1_000_000}
WITHOUT = {"skylake": " clearcpuid=erms,rep_good,xsave"}
WORDS = "console=ttyS0 quiet nokaslr mem=240M tsc=reliable tsc_early_khz={khz}"
RESULT = r"work_load: boot_ns=(\d+) best=(\d+) mean=(\d+)\r"


def result(match):
    return dict(zip(("boot_ns", "best", "mean"), map(int, match.groups())))


def bare(name, directory, initrd, words):
    iso = support.boot_image.make_image(os.path.join(directory, "bare.iso"),
                                        support.boot_image.LinuxImage(support.debian_kernel(), initrd, words))
    machine = support.MACHINES[name](iso, memory=512)
    if hasattr(machine, "lenient_msrs"):
        machine.lenient_msrs = True
    with machine:
        return result(machine.expect(RESULT, 1200))


def virtual(name, initrd, words):
    modules = [(support.debian_kernel(), "kernel"), (initrd, "initrd")]
    with System(name, modules, CONFIG.format(words=words), memory=512) as system:
        system.prompt()
        system.command("start linux")
        system.attach("linux")
        figures = result(system.expect(RESULT, 1200))
        system.expect("VM linux stopped: powered off", 120)
        system.detach()
        print(system.command("exits linux"), end="", flush=True)
        return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("machines", nargs="*", metavar="MACHINE")
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(dir=support.BUILD) as directory:
        initrd = initramfs(support.guest("work_load").removesuffix(".bin"), directory)
        for name in arguments.machines or KHZ:
            words = WORDS.format(khz=KHZ[name]) + WITHOUT.get(name, "")
            figures[name] = {"bare": bare(name, directory, initrd, words), "virtual": virtual(name, initrd, words)}
    print(f"\n{'machine':10}{'':24}{'bare':>16}{'Bulkhead':>16}{'more':>9}")
    for name, both in figures.items():
        for key, what in (("best", "work, least of 8"), ("mean", "work, mean of 8"), ("boot_ns", "to init, ns")):
            alone, under = both["bare"][key], both["virtual"][key]
            print(f"{name:10}{what:24}{alone:16,}{under:16,}{100 * (under / alone - 1):+8.2f} %")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
    check(all(both["virtual"]["best"] > 0 for both in figures.values()), "every machine was measured")


if __name__ == "__main__":
    main()
