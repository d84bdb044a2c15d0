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


def talks(system, words):
    system.attach("echo")
    system.expect("echo: ready\r\n")
    system.machine.send(words)
    system.expect(words)
    system.detach()
    print("ok: the other VM talks", flush=True)


def runs(system, vm):
    used = system.vm(vm)["cpu_seconds"]
    system.wait_until(lambda: system.vm(vm)["cpu_seconds"] > used, f"{vm} uses processor time")


def test(machine):
    with System(machine, MODULES, CONFIG, memory=128) as system:
        system.prompt()
        system.attach("spin")
        system.expect("spin: interrupts are off")
        system.detach()
        runs(system, "spin")
        check("state       running (r-----)" in system.command("info spin"), "info shows it as running")
        check(system.json("exits spin")["guest_cycles"] > 0, "exits counts its time")
        talks(system, "while one spins")

        system.attach("halt")
        system.expect("halt: interrupts are off")
        system.detach()
        system.wait_until(lambda: system.vm("halt")["state"] == "blocked", "the halted VM is shown as blocked")
        used = system.vm("halt")["cpu_seconds"]
        runs(system, "spin")
        check(system.vm("halt")["cpu_seconds"] == used, "and uses no processor time")

        for vm in ("spin", "halt"):
            check(f"VM {vm} was reset" in system.command(f"reset {vm}"), f"{vm} can be reset")
            system.attach(vm)
            system.expect(f"{vm}: interrupts are off")
            system.expect(f"{vm}: interrupts are off")
            system.detach()
            check(system.json(f"info {vm}")["resets"] == 1, "and runs from its beginning again")
        runs(system, "spin")
        check("halt: woke up" not in system.machine.text(), "the halted one never woke up")

        check(system.command("pause spin") == "spin: paused\n", "the spinning one can be paused")
        used = system.vm("spin")["cpu_seconds"]
        talks(system, "while none spins")
        check(system.vm("spin")["cpu_seconds"] == used, "and stands still then")
        system.command("unpause spin")
        runs(system, "spin")
        for vm in ("spin", "halt"):
            check(f"VM {vm} was destroyed" in system.command(f"destroy {vm}"), f"{vm} can be destroyed")
        talks(system, "alone")
        check([vm["state"] for vm in system.json("list")] == ["off", "off", "running"], "two are off, one runs")

        # Each gets what the other had.
        system.command("start halt")
        system.command("start spin")
        for vm in ("spin", "halt"):
            system.attach(vm)
            system.expect(f"{vm}: interrupts are off")
            system.detach()
        runs(system, "spin")
        talks(system, "with both anew")


if __name__ == "__main__":
    support.main(test)
