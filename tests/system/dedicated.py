#!/usr/bin/env python3
"""Debian's kernel on a core of its own, idle and at work in a loop: the host takes the core from it not once, HLT does
not exit, and the console takes it back when it wants to.
usage: dedicated.py MACHINE [SECONDS]
SECONDS: how long each is watched, in the guest's time (5; the aim of 0 exits is for 60)."""

import time

import support
from smp_linux import start_linux
from support import System, check

CONFIG = """\
[vm.linux]
kernel = "vmlinuz"
initrd = "initrd"
memory.max = "256M"
cpuset.cpus = "1"
autostart = false
[vm.halt]
kernel = "halt"
memory.max = "8M"
cpuset.cpus = "1"
autostart = false
"""


def uptime(system):
    return system.json("info linux")["uptime_seconds"]


def counts(system):
    exits = system.json("exits linux")
    return {row["reason"]: row["count"] for row in exits["exits"]}, exits["host_caused"]


def watch(system, seconds, what):
    """What exits while the guest is left alone for `seconds` of its time."""
    begin = uptime(system)
    before, host_before = counts(system)
    while uptime(system) < begin + seconds:
        time.sleep(0.5)
    after, host_after = counts(system)
    elapsed = uptime(system) - begin
    exits = {reason: count - before.get(reason, 0) for reason, count in after.items() if count != before.get(reason, 0)}
    host = {cause: host_after[cause] - host_before[cause] for cause in host_after}
    print(f"{what}, {elapsed:.1f} s of the guest's time: host-caused {host}; by reason, a second: " +
          (", ".join(f"{reason} {count / elapsed:.1f}" for reason, count in sorted(exits.items())) or "none"), flush=True)
    check(sum(host.values()) == 0, f"{what}: no exit was caused by the host")
    return exits, elapsed


def test(machine, seconds="5"):
    modules = [(support.debian_kernel(), "vmlinuz"), (support.initramfs(), "initrd"), (support.guest("halt"), "halt")]
    with System(machine, modules, CONFIG, memory=512, cpus=2, **support.real_time(machine)) as system:
        system.prompt()
        start_linux(system, machine, "linux")
        system.attach("linux")
        system.expect("guest# ", 1800)
        system.shell("sleep 1")
        system.detach()
        check(system.json("cpus")[1]["dedicated"], "core 1 is dedicated")

        exits, elapsed = watch(system, float(seconds), "idle")
        check(exits.get("HLT", 0) < 8 * elapsed, "HLT does not exit as a rule")
        system.attach("linux")
        system.shell("(while :; do :; done) & true")
        system.detach()
        exits, elapsed = watch(system, float(seconds), "busy")
        check(exits.get("HLT", 0) < 8 * elapsed, "HLT does not exit as a rule")

        budget = system.json("exits linux --budget")
        check(budget["watched_seconds"] >= 0.9, "exits --budget watches it for a second of its time")
        check(sum(budget["host_caused"].values()) == 0, "which interrupts it not once")
        check(budget["total"] > 10 and all(row["per_second"] > 0 for row in budget["rates"]), "rates are shown")
        last = [(each["reason"], each["bytes"]) for each in budget["last"]]
        print(last)
        check(any(reason in ("WRMSR", "nested page fault", "port I/O") and code for reason, code in last),
              "and the instructions behind the last exits")
        check("caused by the host" in system.command("exits linux --budget"), "as text, too")

        # The core is no longer its own.
        check("VM halt started" in system.command("start halt"), "another VM comes to the core")
        system.hears("halt", "halt: interrupts are off")
        check(not system.json("cpus")[1]["dedicated"], "which is shared now")
        system.attach("linux")
        system.shell("kill $!; sleep 1")
        system.detach()
        before, _ = counts(system)
        system.attach("linux")
        system.shell("sleep 1")
        system.detach()
        after, _ = counts(system)
        check(after.get("HLT", 0) > before.get("HLT", 0), "and HLT exits")
        check("VM halt was destroyed" in system.command("destroy halt"), "the other VM goes")
        system.attach("linux")
        system.shell("sleep 1")
        system.detach()
        exits, elapsed = watch(system, float(seconds), "idle again")
        check(exits.get("HLT", 0) < 8 * elapsed, "HLT does not exit as a rule")

        system.attach("linux")
        system.machine.send("poweroff -f\r")
        system.expect("VM linux stopped: powered off")
        check("halt: woke up" not in system.machine.text(), "the halted one never woke up")


if __name__ == "__main__":
    support.main(test)
