#!/usr/bin/env python3
"""A guest that does random things, beside a canary that notices what comes through. The same seed is the same stream,
and any step of it can be begun with: what is printed suffices to repeat a failure.
usage: exerciser.py MACHINE [--seed N] [--first STEP] [--exits N]
Ends when the guest has made that many exits (default 20000), and prints them by kind."""

import argparse
import re
import time

import support
from support import System, check

CONFIG = """\
[vm.canary]
kernel = "canary"
memory.max = "16M"

[vm.exerciser]
kernel = "exerciser"
cmdline = "seed={seed} first={first} {extra}"
memory.max = "16M"
on_reboot = "preserve"
autostart = false
"""

BEAT = r"CANARY now {} beats=(\d+) worst=(\d+) corrupt=(\d+)"
UNEXPECTED = r"UNEXPECTED[^\r\n]*\r\n"
PROGRESS = r"EXERCISER seed=\d+ step=(\d+) faults=(\d+) interrupts=(\d+)"
PATIENCE = 600  # seconds without a step


def beat(system, key):
    """Beats and corruptions of the canary. key: another one each time."""
    system.attach("canary")
    system.expect("CANARY beats=")
    system.machine.send(key)
    match = system.expect(BEAT.format(key))
    system.detach()
    return int(match.group(1)), int(match.group(3))


def progress(system):
    """The guest's latest step, faults and interrupts. What is replayed is older than what it prints from now on."""
    system.attach("exerciser")
    match = system.expect(f"{PROGRESS}|{UNEXPECTED}", PATIENCE)
    for _ in range(10):  # what else is replayed
        system.machine.pump(0.2)
    text = system.machine.transcript[match.start():]
    system.detach()
    if unexpected := re.search(UNEXPECTED.encode(), text):
        raise AssertionError(unexpected.group(0).decode().strip())
    return tuple(int(number) for number in re.findall(PROGRESS.encode(), text)[-1])


def test(machine, *arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--exits", type=int, default=20_000)
    options = parser.parse_args(arguments)
    modules = [(support.guest(name), name) for name in ("canary", "exerciser")]
    # QEMU 7.2 aborts (tcg_handle_interrupt: BQL not held) when a guest writes CR8 while a virtual interrupt waits, and
    # has an invalid exit for #GP by other control registers.
    extra = "avoid=control" if machine.startswith("epyc") else ""
    config = CONFIG.format(seed=options.seed, first=options.first, extra=extra)
    with System(machine, modules, config, memory=128, **support.real_time(machine)) as system:
        system.prompt()
        whole = system.json("integrity")
        before, _ = beat(system, "a")
        begin = time.monotonic()
        system.command("start exerciser")
        total, step = 0, options.first
        while total < options.exits:
            time.sleep(2)  # the console's own work shall not be most of what the core does
            step, faults, interrupts = progress(system)
            state = system.vm("exerciser")["state"]
            if state not in ("running", "blocked"):
                reason = system.json("info exerciser")["reason"]
                raise AssertionError(f"seed {options.seed}: stopped near step {step}: {reason}")
            exits = system.json("exits exerciser")
            total = exits["total"]
        seconds = time.monotonic() - begin
        for entry in exits["exits"]:
            print(f"{entry['count']:>12} {entry['reason']}")
        print(f"seed {options.seed}: {total} exits, {step} steps, {faults} faults, {interrupts} interrupts; "
              f"{total / seconds * 3600 / 1e6:.1f} million exits an hour", flush=True)
        beats, corrupt = beat(system, "b")
        check(beats > before, f"the canary's heart beats: {beats}")
        check(corrupt == 0, "its registers and memory are as it painted them")
        system.command("destroy exerciser")
        check(system.json("integrity") == whole, "text, page tables and free memory of the hypervisor are as before")


if __name__ == "__main__":
    support.main(test)
