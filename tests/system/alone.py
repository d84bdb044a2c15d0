#!/usr/bin/env python3
"""Guests that never let go of a core they have for themselves, one with interrupts off, one inside its NMI handler: the
other core's console pauses, resets and destroys them all the same.
usage: alone.py MACHINE"""

import support
from support import System, check

CONFIG = """\
[vm.spin]
kernel = "spin"
memory.max = "8M"
cpuset.cpus = "1"
[vm.nmi]
kernel = "nmi_spin"
memory.max = "8M"
cpuset.cpus = "2"
[vm.halt]
kernel = "halt"
memory.max = "8M"
cpuset.cpus = "3"
"""

VMS = ("spin", "nmi", "halt")
MODULES = [(support.guest(name), name) for name in ("spin", "nmi_spin", "halt")]
# Bochs 2.7 blocks NMIs at a VM entry that says so, but does not unblock them at one that does not: on a core whose last
# guest never left its NMI handler the next one gets none until its first IRET.
READY = {"spin": "spin: interrupts are off", "nmi": "nmi_spin: (in the NMI handler|no NMI came)", "halt": "halt: interrupts are off"}


def started(system, vm, times=1):
    system.hears(vm, *[READY[vm]] * times)


def test(machine):
    with System(machine, MODULES, CONFIG, memory=128, cpus=4, **support.real_time(machine)) as system:
        system.prompt()
        for vm in VMS:
            started(system, vm)
        check("nmi_spin: in the NMI handler" in system.machine.text(), "the NMI came")
        for vm in ("spin", "nmi"):
            system.runs(vm)
            for _ in range(3):
                check(system.command(f"pause {vm}") == f"{vm}: paused\n", f"{vm} can be paused")
                used = system.vm(vm)["cpu_seconds"]
                check(system.vm(vm)["cpu_seconds"] == used, "and stands still then")
                system.command(f"unpause {vm}")
                system.runs(vm)
            check(len(system.json(f"regs {vm} 0")) > 0, "its registers can be seen")
        for vm in VMS:
            check(f"VM {vm} was reset" in system.command(f"reset {vm}"), f"{vm} can be reset")
            started(system, vm, 2)
        for vm in VMS:
            check(f"VM {vm} was destroyed" in system.command(f"destroy {vm}"), f"{vm} can be destroyed")
        check([vm["state"] for vm in system.json("list")] == ["off", "off", "off"], "all are off")
        for vm in VMS:
            system.command(f"start {vm}")
            started(system, vm)
        log = system.command("dmesg")
        for code in ("HV-E043", "HV-E029", "HV-E028"):
            check(code not in log, f"{code} was not heard of")
        check("halt: woke up" not in system.machine.text(), "the halted one never woke up")


if __name__ == "__main__":
    support.main(test)
