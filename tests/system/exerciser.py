#!/usr/bin/env python3
"""A guest that does random things on all its processors, beside a canary on a core of its own that notices what comes
through. The same seed is the same stream, and any step of it can be begun with: what is printed suffices to repeat a
failure.
usage: exerciser.py MACHINE [--exits N] [--seed N] [--first STEP] [--cpus N] [--deadly N] [--kinds MASK]
                            [--check SECONDS] [--linux] [--verbose]
Ends when the guest has made that many exits (default 20000), and prints them by kind. When it has killed itself, which
one in --deadly steps does on purpose (default 100000; 0: none), it is started again with the next seed. Every --check
seconds (default 10) the hypervisor's checksums and free memory, the canary and the guest's report are looked at. --linux has
a Debian guest work beside them, on one more core."""

import argparse
import collections
import contextlib
import re
import struct
import tempfile
import time

import support
from machines.machine import MachineError
from smp_linux import BYSTANDER, bystander_modules, start_bystander, was_busy
from support import System, check

CONFIG = """\
[vm.canary]
kernel = "canary"
cmdline = "{canary}"
memory.max = "16M"
cpuset.cpus = "{canary_core}"

[vm.exerciser]
kernel = "exerciser"
memory.max = "16M"
vcpus = {cpus}
cpuset.cpus = "{first_core}-{last_core}"
on_reboot = "preserve"
autostart = false
"""

BEAT = r"CANARY now {} beats=(\d+) worst=(\d+) corrupt=(\d+)"
# What the guest is told for the sake of an emulator. QEMU 7.2 aborts (tcg_handle_interrupt: BQL not held) when a guest
# writes CR8 while a virtual interrupt waits, and has an invalid exit for #GP by other control registers.
# It also delivers interrupts to a guest with RFLAGS.IF clear: VMRUN leaves the vector of an interrupt in EVENTINJ in
# exception_index, from where the next request to leave the loop of cpu_exec() has it delivered once more. Bulkhead has
# only those there behind which a further one wants a window, once in a million exits. That request is lost by it: where it
# was another core's, which waits for all to stop because it locks memory of a device, or across 16 bytes, all of them
# wait forever. So memory is not locked there.
EMULATORS = {"epyc": " avoid=control tolerate=if"}
REPORT = 0x9000
LINE = struct.Struct("<8Q")
FIELDS = ("step", "faults", "interrupts", "starts", "strays", "nudges", "unexpected", "at")
PATIENCE = 120  # seconds without a step of any processor
# Microseconds that the canary may be without its core. On QEMU these are of a machine that has other things to do.
WORST = {"skylake": 50_000, "tigerlake": 50_000, "ryzen": 50_000, "epyc": 3_000_000}

# How a VM may be stopped: what is known not to be emulated.
STOPS = r"unsupported instruction at \S+ on device memory|an event's delivery touched"


class Campaign:
    def __init__(self, system, machine, options):
        self.system = system
        self.machine = machine
        self.options = options
        self.seed = options.seed
        self.exits = collections.Counter()  # of the lives that are over
        self.totals = collections.Counter()
        self.deaths = collections.Counter()
        self.beats = 0
        self.worst = 0
        self.key = 0

    def start(self, first=0):
        avoid = next((words for name, words in EMULATORS.items() if self.machine.startswith(name)), "")
        kinds = "" if self.options.kinds == 0xFF else f" kinds={self.options.kinds}"
        words = (f"seed={self.seed} first={first} cpus={self.options.cpus} deadly={self.options.deadly}{kinds}{avoid}")
        self.system.machine.send(f"set exerciser cmdline {words}\r")  # longer than the line, which scrolls
        self.system.expect(f"cmdline is now {words}")
        self.system.prompt()
        said = self.system.command("start exerciser")
        if "VM exerciser started" not in said:
            raise AssertionError(said)
        self.steps = None
        self.moved = time.monotonic()

    def report(self):
        """What the guest says of each of its processors."""
        size = 64 + LINE.size * self.options.cpus
        shown = self.system.json(f"x exerciser {REPORT:#x} {size} --physical --unit 1")
        if "memory" not in shown:
            raise AssertionError(f"seed {self.seed}: no memory is shown, but {shown}")
        pieces = shown["memory"]
        data = bytes.fromhex("".join(piece["bytes"] for piece in pieces))
        return [dict(zip(FIELDS, LINE.unpack_from(data, 64 + LINE.size * i))) for i in range(self.options.cpus)]

    def where(self, lines):
        return f"seed {self.seed}, steps {' '.join(str(line['step']) for line in lines)}"

    def current_exits(self):
        return {entry["reason"]: entry["count"] for entry in self.system.json("exits exerciser")["exits"]}

    def beat(self, again=False):
        """The canary answers, and has nothing to complain of. again: it has just been asked."""
        key = "abcdefghijklmnopqrstuvwxyz"[self.key % 26]
        self.key += 1
        # Not all that it has ever said, which takes long at the speed of a serial line.
        self.system.machine.send("console canary --last 1\r")
        self.system.expect("attached to canary")
        self.system.expect("CANARY beats=")  # only then it listens
        self.system.machine.send(key)
        match = self.system.expect(BEAT.format(key))
        self.system.detach()
        beats, self.worst, corrupt = (int(number) for number in match.groups())
        if corrupt != 0 or beats < self.beats or (beats == self.beats and not again):
            raise AssertionError(f"seed {self.seed}: the canary says {match.group(0).decode()}")
        self.beats = beats

    def look(self):
        """Looks at everything once; how many exits there have been."""
        lines = self.report()
        if self.system.json("integrity") != self.whole:
            raise AssertionError(f"{self.where(lines)}: integrity was {self.whole}, is {self.system.json('integrity')}")
        self.beat()
        for line in lines:
            if line["unexpected"]:
                raise AssertionError(f"{self.where(lines)}: unexpected vector {line['unexpected'] - 256} at "
                                     f"{line['at']:#x} in the guest itself\n"
                                     + self.system.command(f"x exerciser {line['at']:#x} 16 --unit 1 --physical")
                                     + self.system.command(f"regs exerciser {lines.index(line)}"))
        exits = self.current_exits()
        state = self.system.vm("exerciser")["state"]
        steps = [line["step"] for line in lines]
        if steps != self.steps:
            self.steps, self.moved = steps, time.monotonic()
        elif time.monotonic() - self.moved > PATIENCE:
            raise AssertionError(f"{self.where(lines)}: no processor moves any more\n"
                                 + "".join(self.system.command(f"regs exerciser {i}") for i in range(self.options.cpus))
                                 + self.system.command("vcpu-list exerciser") + self.emulator_registers())
        if state not in ("running", "blocked"):
            lines = self.report()
            exits = self.current_exits()
            reason = self.system.json("info exerciser")["reason"]
            print(f"{self.where(lines)}: {state}: {reason}", flush=True)
            if state != "shut down" and not re.search(STOPS, reason):
                raise AssertionError(f"{self.where(lines)}: {state}: {reason}")
            self.deaths[re.sub(r"vCPU.*?(unsupported instruction|an event's delivery).*", r"\1 on device memory", reason)] += 1
            self.exits.update(exits)
            self.count(lines)
            self.system.command("destroy exerciser")
            if self.system.json("integrity") != self.before:
                raise AssertionError(f"seed {self.seed}: {self.system.json('integrity')} is left of {self.before}")
            self.seed += 1
            self.start()
            exits = {}
        self.lines = lines
        return self.exits.total() + sum(exits.values()), exits

    def emulator_registers(self):
        """What QEMU says of its processors."""
        if self.system.machine.name != "qemu" or self.system.machine.process.poll() is not None:
            return ""
        return self.system.machine.command("human-monitor-command", **{"command-line": "info registers -a"})

    def count(self, lines):
        for line in lines:
            self.totals.update({name: line[name] for name in FIELDS[:-2]})

    def run(self):
        print(f"the machine is up", flush=True)
        begin = time.monotonic()
        first = self.options.first
        self.before = self.system.json("integrity")
        self.start(first)
        self.whole = self.system.json("integrity")
        total, shown = 0, begin
        while total < self.options.exits:
            end = time.monotonic() + self.options.check
            self.ended = False
            while time.monotonic() < end and not self.ended:
                self.system.machine.pump(1)
                # It is announced.
                self.ended = b"VM exerciser " in self.system.machine.transcript[self.system.machine.position:]
            total, exits = self.look()
            if self.options.verbose:
                print(f"{time.monotonic() - begin:.0f} s: {total} exits; {self.where(self.lines)}", flush=True)
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(f"{shown - begin:.0f} s: {total} exits; {self.where(self.lines)}; beats {self.beats}, worst "
                      f"{self.worst} us", flush=True)
        seconds = time.monotonic() - begin
        self.exits.update(exits)
        self.count(self.lines if exits else [])
        for reason, count in self.exits.most_common():
            print(f"{count:>12} {reason}")
        for reason, count in self.deaths.most_common():
            print(f"ended {count} times by: {reason}")
        print(f"seeds {self.options.seed} to {self.seed} on {self.options.cpus} processors: {total} exits, "
              f"{self.totals['step'] - first * self.options.cpus} steps, {self.totals['faults']} faults, "
              f"{self.totals['interrupts']} interrupts, {self.totals['strays']} NMIs and debug exceptions between "
              f"steps, {self.totals['starts']} starts of processors, {self.totals['nudges']} nudges in {seconds:.0f} s; "
              f"{total / seconds * 3600 / 1e6:.1f} million exits an hour", flush=True)


def test(machine, *arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--exits", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--deadly", type=int, default=100_000)
    parser.add_argument("--kinds", type=int, default=0xFF)
    parser.add_argument("--check", type=float, default=10)
    parser.add_argument("--linux", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(arguments)
    modules = [(support.guest(name), name) for name in ("canary", "exerciser")]
    # In Bochs the cores take turns, and each that is at work is time lost: the first one is shared with the console there,
    # and the canary rests between its rounds.
    first_core = 1 if machine.startswith("epyc") else 0
    cores = first_core + options.cpus + 1
    config = CONFIG.format(cpus=options.cpus, canary="" if first_core else "rest=2000", first_core=first_core, last_core=cores - 2, canary_core=cores - 1)
    timing = support.real_time(machine)
    if timing:
        # One thread cannot wait for itself to stop: see EMULATORS.
        timing = {**timing, "single": True}
    with contextlib.ExitStack() as stack:
        if options.linux:
            modules += bystander_modules(stack.enter_context(tempfile.TemporaryDirectory()))
            config += BYSTANDER.format(core=cores)
        system = stack.enter_context(System(machine, modules, config, memory=512 if options.linux else 128,
                                            cpus=cores + options.linux, **timing))
        system.prompt()
        if options.linux:
            start_bystander(system, machine)
        campaign = Campaign(system, machine, options)
        try:
            campaign.run()
        except MachineError:
            # Where the cores are that do not answer.
            for _ in range(3):
                print(campaign.emulator_registers())
                time.sleep(1)
            raise
        campaign.beat(again=True)
        check(True, f"the canary's heart beats, {campaign.beats} times; its registers and memory are as it painted them")
        check(campaign.worst < WORST[machine], f"it never waited longer than {campaign.worst} us")
        system.command("destroy exerciser")
        check(system.json("integrity") == campaign.before, "text, page tables and free memory of the hypervisor are as before")
        if options.linux:
            was_busy(system, machine, "linux")


if __name__ == "__main__":
    support.main(test)
