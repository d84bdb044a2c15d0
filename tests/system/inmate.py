#!/usr/bin/env python3
"""A hostile guest tries what is on the list of threats, one line a case, beside a canary that notices what comes
through. A case may fail only where the emulator is known to be wrong (emulator_faults.py).
usage: inmate.py MACHINE [--bare] [--only AREA] [--linux] [--verbose]
--verbose prints each case; without it those that pass are only counted. --linux has a Debian guest work beside them, on a
core of its own. --bare runs the same guest on the emulator without Bulkhead: what fails there too is the emulator's."""

import argparse
import collections
import contextlib
import os
import re
import shutil
import tempfile

import support
from emulator_faults import BARE_FATAL, FATAL, FAULTS, KNOWN
from smp_linux import BYSTANDER, bystander_modules, start_bystander, was_busy
from support import System, check

CONFIG = """\
[vm.canary]
kernel = "canary"
memory.max = "16M"

[vm.inmate]
kernel = "inmate"
cmdline = "{cmdline}"
memory.max = "16M"
autostart = false
"""

LINE = (r"PROBE (\S+) (\S+) (PASS|FAIL|SKIP)([^\r\n]*)\r?\n|COUNT (\S+) (\d+) (\d+) (\d+)\r?\n|"
        r"INMATE (\d+) \d+ \d+ \d+\r?\n|UNEXPECTED[^\r\n]*\r?\n|"
        r"\[bulkhead: VM inmate [^\r\n]*\r?\n")
BEAT = r"CANARY now {} beats=(\d+) worst=(\d+) corrupt=(\d+)"
# Microseconds that the canary may be without the core. Bochs counts time by instructions; QEMU, which would need too
# long for that here, by the clock of a machine that has other things to do.
WORST = {"skylake": 250_000, "epyc": 3_000_000}


class BareImage:
    """The guest booted by GRUB itself."""

    def __init__(self, cmdline):
        self.cmdline = cmdline

    def entry(self, root):
        shutil.copy(support.guest("inmate"), os.path.join(root, "boot/inmate.bin"))
        return [f"multiboot /boot/inmate.bin {self.cmdline}"]


def read_cases(machine, verbose):
    """The cases that the inmate prints, how many there are of each probe, and its last line."""
    cases, counts = [], {}
    while True:
        match = machine.expect(LINE, 120)
        text = match.group(0).decode(errors="replace").strip()
        if match.group(1):
            if verbose:
                print(text, flush=True)
            cases.append(tuple(match.group(n).decode().strip() for n in (1, 2, 3, 4)))
        elif match.group(5):
            passed, failed, skipped = (int(match.group(n)) for n in (6, 7, 8))
            counts[match.group(5).decode()] = {"PASS": passed, "FAIL": failed, "SKIP": skipped}
        else:
            print(text, flush=True)
            return cases, counts, text


def run_bare(machine, cmdline, verbose):
    with tempfile.TemporaryDirectory() as directory:
        iso = os.path.join(directory, "bare.iso")
        support.boot_image.make_image(iso, BareImage(cmdline))
        with support.MACHINES[machine](iso, memory=128, **support.real_time(machine)) as running:
            cases, _, _ = read_cases(running, verbose)
    for identity, name, verdict, why in cases:
        if verdict == "FAIL":
            print(f"BARE {identity} {name} {verdict} {why}", flush=True)


def beat(system, key):
    """Beats, longest wait in microseconds, and corruptions of the canary so far. key: another one each time, which tells
    the answer from what the console replays."""
    system.attach("canary")
    system.expect("CANARY beats=")  # only then it listens
    system.machine.send(key)
    match = system.expect(BEAT.format(key))
    system.detach()
    return tuple(int(number) for number in match.groups())


def judge(machine, cases, counts):
    """Prints what each probe counts and what failed; returns the failures that are Bulkhead's."""
    ours = []
    for identity, name, verdict, why in cases:
        if verdict != "FAIL":
            continue
        for kind, table in (("EMULATOR", FAULTS[machine]), ("KNOWN", KNOWN[machine])):
            reason = next((reason for pattern, reason in table if re.fullmatch(pattern, f"{identity} {name}")), None)
            if reason:
                print(f"{kind} {identity} {name}: {reason}", flush=True)
                counts.setdefault(identity, collections.Counter())["FAIL"] -= 1
                counts[identity][kind] = counts[identity].get(kind, 0) + 1
                break
        else:
            ours.append(f"FAIL {identity} {name} {why}")
    for identity in sorted(counts, key=lambda text: (text[0], int(text[1:]))):
        print(f"{identity}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts[identity].items() if count))
    for line in ours:
        print(line, flush=True)
    return ours


def test(machine, *arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--avoid", default="")
    parser.add_argument("--linux", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(arguments)
    avoid = FATAL[machine] + [name for name in options.avoid.split(",") if name]
    if options.bare:
        avoid = avoid + BARE_FATAL[machine]
    cmdline = (f"avoid={','.join(avoid)} " if avoid else "") + (f"only={options.only} " if options.only else "")
    cmdline += "" if options.verbose else "quiet=1"
    if options.bare:
        run_bare(machine, cmdline, options.verbose)
        return
    modules, config, size = [(support.guest(name), name) for name in ("inmate", "canary")], CONFIG.format(cmdline=cmdline), {}
    with contextlib.ExitStack() as stack:
        if options.linux:
            modules += bystander_modules(stack.enter_context(tempfile.TemporaryDirectory()))
            config += BYSTANDER.format(core=1)
            size = {"cpus": 2}
        system = stack.enter_context(System(machine, modules, config, memory=512 if options.linux else 128, **size,
                                            **support.real_time(machine)))
        system.prompt()
        if options.linux:
            start_bystander(system, machine)
        before, _, _ = beat(system, "a")
        whole = system.json("integrity")
        system.command("start inmate")
        system.attach("inmate")
        cases, counts, last = read_cases(system.machine, options.verbose)
        system.detach()
        total = sum(sum(verdicts.values()) for verdicts in counts.values())
        ours = judge(machine, cases, counts)
        beats, worst, corrupt = beat(system, "b")
        check(last.startswith("INMATE"), "the inmate came to its end")
        check(not ours, f"{total} cases, none of which shows a defect")
        if not options.only:
            check(total >= 4000, "all of them were tried")
        check(corrupt == 0, f"the canary's registers and memory are as it painted them, after {beats} beats")
        check(beats > before, "its heart went on beating")
        check(worst < WORST[machine], f"the canary never waited longer than {worst} us")
        system.command("destroy inmate")
        check(system.json("integrity") == whole, "text, page tables and free memory of the hypervisor are as before")
        check(system.vm("canary")["state"] == "running", "the console answers")
        if options.linux:
            was_busy(system, machine, "linux")


if __name__ == "__main__":
    support.main(test)
