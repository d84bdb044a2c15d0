#!/usr/bin/env python3
"""Machines on which no VM can run: one line with a code says what is missing, then the machine is halted.
penryn: VT-x without extended page tables; epyc-no-svm, qemu64: neither VT-x nor AMD-V; epyc-no-npt: AMD-V without
nested paging; epyc-no-nx: no execute-disable; pentium3: no 64-bit mode.
usage: no_virtualization.py MACHINE"""

import re

import support
from support import System, check

NEITHER = (r"error: HV-E200: the processor has neither VT-x \(CPUID 1 ECX bit 5\) nor AMD-V \(CPUID 80000001h ECX bit 2\), "
           r"or the firmware hides it; enable virtualization in the firmware setup, or use a processor that has it\r\n")
MESSAGES = {
    "penryn": r"error: HV-E202: the processor lacks (the )?(EPT|enable EPT|secondary)[^\r\n]*; needs an Intel CPU with EPT and "
              r"unrestricted guest[^\r\n]*\r\n",
    "epyc-no-svm": NEITHER,
    "qemu64": NEITHER,
    "epyc-no-npt": r"error: HV-E221: the processor's AMD-V has no nested paging \(CPUID 8000000Ah EDX bit 0\); use a newer "
                   r"[^\r\n]*\r\n",
    "epyc-no-nx": r"HV-E008: no execute-disable \(NX\); enable it in the firmware setup\r\n",
    "pentium3": r"HV-E008: this processor has no 64-bit mode; Bulkhead needs an x86-64 machine\r\n",
}
# These two are said before there is a log.
EARLY = ("epyc-no-nx", "pentium3")


def is_halted(machine):
    return "HLT=1" in machine.command("human-monitor-command", **{"command-line": "info registers"})


def test(machine):
    config = "[vm.echo]\nkernel = \"echo\"\n"
    with System(machine, [(support.guest("echo"), "echo")], config, memory=128) as system:
        system.expect(MESSAGES[machine])
        print("ok: " + system.machine.text().rstrip().splitlines()[-1], flush=True)
        if machine not in EARLY:
            system.expect(r"no VM can run on this machine; Bulkhead \S+ is halted\r\n")
            check("Bulkhead" in system.machine.text().splitlines()[0], "behind the banner")
        if system.machine.name == "qemu":
            system.wait_until(lambda: is_halted(system.machine), "the processor halts")
        for _ in range(3):
            system.machine.pump(0.5)
        check(system.machine.process.poll() is None, "the machine is neither reset nor off")
        check(support.PROMPT not in system.machine.text() and "VM echo" not in system.machine.text(),
              "there is no console, and no VM was started")
        check(re.search(r"(halted|setup|machine)\s*$", system.machine.text()), "and nothing more is said")


if __name__ == "__main__":
    support.main(test)
