#!/usr/bin/env python3
"""Guests that fail: a triple fault resets that VM alone, as its configuration wants it; an instruction that cannot be
emulated stops that VM alone, with its reason; another VM keeps answering all the while.
usage: faults.py MACHINE"""

import re

import support
from support import System, check

CONFIG = """\
[vm.echo]
kernel = "echo"
memory.max = "8M"

[vm.resets]
kernel = "triple_fault"
memory.max = "8M"
autostart = false

[vm.resets-preserve]
kernel = "triple_fault"
memory.max = "8M"
on_reboot = "preserve"

[vm.resets-destroy]
kernel = "triple_fault"
memory.max = "8M"
on_reboot = "destroy"

[vm.crashes]
kernel = "unsupported"
memory.max = "8M"

[vm.crashes-destroy]
kernel = "unsupported"
memory.max = "8M"
on_crash = "destroy"

[vm.crashes-restart]
kernel = "unsupported"
memory.max = "8M"
on_crash = "restart"
autostart = false
"""

MODULES = [(support.guest(name), name) for name in ("echo", "triple_fault", "unsupported")]
REASON = r"vCPU 0 at 0x[0-9a-f]+: unsupported instruction at 0x[0-9a-f]+ on device memory: dd 1d 00 00 c0 fe"


def talks(system, words):
    system.attach("echo")
    system.expect("echo: ready\r\n")
    system.machine.send(words)
    # Announcements may come in between.
    for character in words:
        system.expect(re.escape(character))
    system.detach()
    print("ok: the other VM talks", flush=True)


def state(system, vm):
    return system.vm(vm)["state"]


def endless(system, vm):
    """A VM that resets or crashes again and again: the console stays usable, the VM can be destroyed."""
    system.command(f"start {vm}")
    system.wait_until(lambda: system.json(f"info {vm}")["resets"] >= 2, f"{vm} starts again and again")
    talks(system, "hello")
    check("cpu time" in system.command(f"info {vm}"), "the console answers meanwhile")
    check(f"VM {vm} was destroyed" in system.command(f"destroy {vm}"), "the VM can be destroyed")
    check(state(system, vm) == "off", "and is off then")
    resets = system.json(f"info {vm}")["resets"]
    talks(system, "bye")
    check(system.json(f"info {vm}")["resets"] == resets, "for good")


def test(machine):
    with System(machine, MODULES, CONFIG, memory=128, **support.real_time(machine)) as system:
        system.prompt()
        system.wait_until(lambda: state(system, "crashes") == "crashed", "the unsupported instruction stops its VM")
        system.wait_until(lambda: state(system, "resets-preserve") == "shut_down" or
                          state(system, "resets-preserve") == "shut down", "on_reboot = preserve stops after a triple fault")
        system.wait_until(lambda: state(system, "resets-destroy") == "off", "on_reboot = destroy destroys")
        system.wait_until(lambda: state(system, "crashes-destroy") == "off", "on_crash = destroy destroys")
        check(state(system, "echo") == "running", "the VM beside them runs")

        log = system.command("dmesg")
        check("VM resets-preserve stopped: triple fault" in log, "the log tells of the triple fault")
        check("VM resets-destroy stopped: triple fault" in log and "VM resets-destroy was destroyed" in log,
              "and of what followed")
        check(re.search("VM crashes crashed: " + REASON, log), "the log has the instruction's address and bytes")
        check(re.search(REASON, system.json("info crashes")["reason"]), "and so has info")
        check(re.search(r"^crashes +\d+ +8M +1 ----c- crashed", system.command("list"), re.MULTILINE), "list flags it")
        talks(system, "one")

        system.hears("resets-preserve", "triple fault: about to\r\n")
        check(system.json("info resets-preserve")["resets"] == 0, "no reset is counted where none was made")
        check("VM resets-preserve started" in system.command("start resets-preserve"), "it can be started again")
        system.wait_until(lambda: "shut" in state(system, "resets-preserve"), "and faults again")
        check("VM crashes was reset" in system.command("reset crashes"), "the crashed one can be reset")
        system.wait_until(lambda: state(system, "crashes") == "crashed", "and crashes again")

        endless(system, "resets")
        endless(system, "crashes-restart")
        check("survived it" not in system.machine.text(), "no guest went on after its fault")


if __name__ == "__main__":
    support.main(test)
