#!/usr/bin/env python3
"""Guests that raise exceptions without end, each with a core for itself, where nothing but a kick of another core's ends its
turn: the console answers, another VM goes on, and each can be paused, reset and destroyed. Not on QEMU, which checks no
alignment, and aborts when the watchpoint strikes amid an exception.
usage: exception_loops.py MACHINE"""

import support
from support import System, check

GUESTS = ("debug_loop", "alignment_loop")
CONFIG = "".join(f"""\
[vm.{name}]
kernel = "{name}"
memory.max = "8M"
cpuset.cpus = "{core}"
""" for name, core in (("debug_loop", 1), ("alignment_loop", 2), ("echo", 0)))

MODULES = [(support.guest(name), name) for name in (*GUESTS, "echo")]


def exceptions(system, vm):
    reasons = {row["reason"]: row["count"] for row in system.json(f"exits {vm}")["exits"]}
    return reasons.get("exception", 0)


def test(machine):
    with System(machine, MODULES, CONFIG, memory=128, cpus=3) as system:
        system.prompt()
        for vm in GUESTS:
            system.hears(vm, f"{vm}: begins")
        system.wait_until(lambda: exceptions(system, "debug_loop") > 100, "#DB comes again and again")
        system.wait_until(lambda: exceptions(system, "alignment_loop") > 100, "and so does #AC")
        system.talks(words="beside them")
        for vm in GUESTS:
            check(system.vm(vm)["state"] == "running", f"{vm} is running")
            check(system.command(f"pause {vm}") == f"{vm}: paused\n", "it can be paused")
            before = exceptions(system, vm)
            check(exceptions(system, vm) == before, "and stands still then")
            system.command(f"unpause {vm}")
            check(f"VM {vm} was reset" in system.command(f"reset {vm}"), "it can be reset")
            system.hears(vm, f"{vm}: begins")
            check(f"VM {vm} was destroyed" in system.command(f"destroy {vm}"), "and destroyed")
        system.talks(words="alone")
        check("HV-E043" not in system.command("dmesg"), "no core was silent")


if __name__ == "__main__":
    support.main(test)
