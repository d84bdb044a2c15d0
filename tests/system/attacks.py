#!/usr/bin/env python3
"""What a guest may do to hold on to the machine, one thing at a time, on both of its processors: storms of exits and
interrupts, processors parked, restarted or in an endless delivery of exceptions, floods of output. Each time the canary
beats on time, the console answers, the guest can be destroyed, and nothing of it is left, in the memory neither.
usage: attacks.py MACHINE [ATTACK...]"""

import re

import support
from exerciser import BEAT, LINE, REPORT
from support import System, check

CONFIG = """\
[vm.canary]
kernel = "canary"
cmdline = "{canary}"
memory.max = "16M"
cpuset.cpus = "2"

[vm.inmate]
kernel = "exerciser"
memory.max = "16M"
vcpus = 2
cpuset.cpus = "0-1"
on_reboot = "preserve"
autostart = false

[vm.align]
kernel = "ac_loop"
memory.max = "16M"
cpuset.cpus = "1"
autostart = false
"""

# Those that go on without end and say in their report how often; those that go on without saying anything; those that
# are over at once.
STORMS = ("wbinvd", "cpuid", "pause", "rdtsc", "eoi", "tpr", "nmi", "timer", "restart", "flood")
SILENT = ("park", "debug-loop", "align")
ENDS = ("no-idt", "bad-double-fault")
# What the emulator does not survive. QEMU 7.2 aborts (qemu_mutex_lock_iothread_impl) when a watchpoint strikes while it
# delivers an interrupt.
FATAL = {"epyc": ("debug-loop",)}
# Microseconds that the canary may be without its core; on QEMU of a machine that has other things to do.
WORST = {"skylake": 50_000, "epyc": 5_000_000}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


class Attacks:
    def __init__(self, system, machine):
        self.system = system
        self.machine = machine
        self.key = 0
        self.beats = -1

    def line(self, number=0):
        """What the guest says of one of its processors."""
        memory = self.system.json(f"x inmate {REPORT + 64 + LINE.size * number:#x} {LINE.size} --physical --unit 1")
        return LINE.unpack(bytes.fromhex("".join(piece["bytes"] for piece in memory["memory"])))

    def exits(self, vm):
        """That the guest caused."""
        shown = self.system.json(f"exits {vm}")
        return shown["total"] - sum(shown["host_caused"].values())

    def start(self, name):
        if name == "align":
            self.system.command("start align")
            return "align"
        self.system.command(f"set inmate cmdline cpus=2 attack={name}")
        self.system.command("start inmate")
        return "inmate"

    def beat(self):
        key = "abcdefghijklmnopqrstuvwxyz"[self.key % 26]
        self.key += 1
        self.system.machine.send("console canary --last 1\r")
        self.system.expect("attached to canary")
        self.system.expect("CANARY beats=")  # only then it listens
        self.system.machine.send(key)
        beats, worst, corrupt = (int(number) for number in self.system.expect(BEAT.format(key)).groups())
        self.system.detach()
        check(corrupt == 0 and beats >= self.beats and worst < WORST[self.machine],
              f"the canary has {beats} beats, never waited longer than {worst} us, and is as it painted itself")
        self.beats = beats

    def finish(self, name, vm):
        self.beat()
        self.system.command(f"destroy {vm}")
        check(self.system.json("integrity") == self.before and self.system.vm(vm)["state"] == "off",
              f"{name}: the console destroys it; text, page tables and free memory are as before")

    def storm(self, name):
        vm = self.start(name)
        # On one of them at least: the other may get nowhere for all the NMIs that it is sent.
        enough = 10 if name == "flood" else 1000
        self.system.wait_until(lambda: any(enough <= self.line(number)[0] < 1 << 63 for number in (0, 1)), f"{name} goes on")
        if name == "flood":
            self.filtered()
        self.finish(name, vm)

    def filtered(self):
        """What the guest says reaches the operator without what a terminal obeys, everywhere but in its console."""
        for command in ("scrollback inmate 50", "logs inmate --last 50", "list", "info inmate"):
            text = self.system.command(command)
            bad = CONTROL.search(text.replace("\r", "").replace("\n", "").replace("\t", ""))
            check(bad is None, f"`{command}` prints no control characters of the guest's")
        check(self.system.vm("canary")["state"] in ("running", "blocked"), "a forged command is text")
        # The operator at the guest's console leaves it by his key, whatever it prints.
        self.system.machine.send("console inmate --last 1\r")
        self.system.expect("attached to inmate")
        self.system.expect("owned")
        self.system.machine.send("\x1d")
        self.system.expect("left the console of inmate")
        self.system.prompt()

    def silent(self, name):
        vm = self.start(name)
        if name == "align":
            self.system.wait_until(lambda: "ac_loop: begins" in self.system.command("scrollback align"), "align begins")
        else:
            self.system.wait_until(lambda: self.line()[3] == 1 and self.line(1)[3] == 1, f"{name} begins")
        if name == "park":
            # Under VT-x what has its core to itself sleeps in guest mode, where nobody sees it.
            shown = lambda: self.system.vm(vm)["state"] == "blocked" or self.system.vm(vm)["sleep_counts"]
            self.system.wait_until(shown, "park: it shows as blocked, or as what may be asleep")
            before, exits = self.system.vm(vm)["cpu_seconds"], self.exits(vm)
            self.beat()
            if not self.system.vm(vm)["sleep_counts"]:
                check(self.system.vm(vm)["cpu_seconds"] - before < 0.001, "and its cores do not spin")
            check(self.exits(vm) == exits, f"and nothing but the host has it exit any more, after {exits} times")
        self.finish(name, vm)

    def ends(self, name):
        vm = self.start(name)
        self.system.wait_until(lambda: self.system.vm(vm)["state"] == "shut down", f"{name}: it has shut down")
        reason = self.system.json(f"info {vm}")["reason"]
        check("triple fault" in reason, f"by a {reason}")
        self.finish(name, vm)

    def leftovers(self):
        """A VM that has the memory of a destroyed one finds nothing of it."""
        self.start("paint")
        self.system.wait_until(lambda: self.line()[1] != 0, "a guest paints its memory")
        words = self.line()[1]
        ranges = next(vm["ranges"] for vm in self.system.json("mem")["vms"] if vm["vm"] == "inmate")
        self.finish("paint", "inmate")
        self.start("scan")
        self.system.wait_until(lambda: self.line()[0] == 1, "another one looks for it")
        again = next(vm["ranges"] for vm in self.system.json("mem")["vms"] if vm["vm"] == "inmate")
        check(again == ranges, "in the same place")
        hits, others = self.line()[1:3]
        check(hits == 0, f"and finds none of {words} words")
        check(others < 65536 // 8, f"what is not zero, {others} words, is less than the ACPI tables may have")
        self.finish("scan", "inmate")


def test(machine, *wanted):
    modules = [(support.guest(name), name) for name in ("canary", "exerciser", "ac_loop")]
    config = CONFIG.format(canary="" if machine.startswith("epyc") else "rest=2000")
    with System(machine, modules, config, memory=128, cpus=3, **support.real_time(machine)) as system:
        system.prompt()
        attacks = Attacks(system, machine)
        attacks.before = system.json("integrity")
        for names, run in ((STORMS, attacks.storm), (SILENT, attacks.silent), (ENDS, attacks.ends)):
            for name in names:
                if (not wanted or name in wanted) and name not in FATAL.get(machine, ()):
                    run(name)
        if not wanted or "leftovers" in wanted:
            attacks.leftovers()


if __name__ == "__main__":
    support.main(test)
