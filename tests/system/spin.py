#!/usr/bin/env python3
"""A guest that never gives its processor back (`cli; jmp .`) and one that never wants it again (`cli; hlt`): the console
answers, another VM goes on, both can be reset and destroyed.
usage: spin.py MACHINE"""

import support
from support import System, check

CONFIG = """\
[vm.spin]
kernel = "spin"
memory.max = "8M"
[vm.halt]
kernel = "halt"
memory.max = "8M"
[vm.echo]
kernel = "echo"
memory.max = "8M"
"""

MODULES = [(support.guest(name), name) for name in ("spin", "halt", "echo")]


def test(machine):
    with System(machine, MODULES, CONFIG, memory=128) as system:
        system.prompt()
        system.hears("spin", "spin: interrupts are off")
        system.runs("spin")
        check("state       running (r-----)" in system.command("info spin"), "info shows it as running")
        check(system.json("exits spin")["guest_cycles"] > 0, "exits counts its time")
        system.talks(words="while one spins")

        system.hears("halt", "halt: interrupts are off")
        system.wait_until(lambda: system.vm("halt")["state"] == "blocked", "the halted VM is shown as blocked")
        used = system.vm("halt")["cpu_seconds"]
        system.runs("spin")
        check(system.vm("halt")["cpu_seconds"] == used, "and uses no processor time")

        for vm in ("spin", "halt"):
            check(f"VM {vm} was reset" in system.command(f"reset {vm}"), f"{vm} can be reset")
            system.hears(vm, *[f"{vm}: interrupts are off"] * 2)
            check(system.json(f"info {vm}")["resets"] == 1, "and runs from its beginning again")
        system.runs("spin")
        check("halt: woke up" not in system.machine.text(), "the halted one never woke up")

        check(system.command("pause spin") == "spin: paused\n", "the spinning one can be paused")
        used = system.vm("spin")["cpu_seconds"]
        system.talks(words="while none spins")
        check(system.vm("spin")["cpu_seconds"] == used, "and stands still then")
        system.command("unpause spin")
        system.runs("spin")
        for vm in ("spin", "halt"):
            check(f"VM {vm} was destroyed" in system.command(f"destroy {vm}"), f"{vm} can be destroyed")
        system.talks(words="alone")
        check([vm["state"] for vm in system.json("list")] == ["off", "off", "running"], "two are off, one runs")

        # Each gets what the other had.
        system.command("start halt")
        system.command("start spin")
        for vm in ("spin", "halt"):
            system.hears(vm, f"{vm}: interrupts are off")
        system.runs("spin")
        system.talks(words="with both anew")


if __name__ == "__main__":
    support.main(test)
