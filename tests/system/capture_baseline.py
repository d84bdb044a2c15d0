#!/usr/bin/env python3
"""Boots Debian's kernel bare on a machine of the suite and keeps its dmesg as the baseline for linux.py.
usage: capture_baseline.py MACHINE...      (skylake tigerlake ryzen epyc)"""

import os
import sys
import tempfile

import support
from linux import BASELINES, warnings

# What must be said to the bare kernel, lest it hang: Bochs' ryzen never ends an MWAITX by its timer, with which
# Linux times its delays. (Under Bulkhead there is no MWAITX.)
EXTRA_WORDS = {"ryzen": " clearcpuid=mwaitx"}


def capture(name):
    with tempfile.TemporaryDirectory() as directory:
        iso = support.boot_image.make_image(
            os.path.join(directory, "boot.iso"),
            support.boot_image.LinuxImage(support.debian_kernel(), support.initramfs(),
                                          "console=ttyS0" + EXTRA_WORDS.get(name, "")))
        machine = support.MACHINES[name](iso, memory=1024)
        if hasattr(machine, "lenient_msrs"):
            machine.lenient_msrs = True
        with machine:
            machine.expect("guest is up", 1500)
            machine.send("dmesg -r; echo E\"ND\"\r")
            begin = machine.expect("E\"ND\"\r\n", 60).end()
            end = machine.expect("\nEND", 120).start()
            text = bytes(machine.transcript[begin:end]).decode(errors="replace").replace("\r", "")
    os.makedirs(BASELINES, exist_ok=True)
    with open(os.path.join(BASELINES, name + ".dmesg"), "w") as file:
        file.write("\n".join(warnings(text)) + "\n")
    print(f"{name}: {len(warnings(text))} errors and warnings")


if __name__ == "__main__":
    for argument in sys.argv[1:] or sys.exit(__doc__):
        capture(argument)
