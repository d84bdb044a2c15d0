#!/usr/bin/env python3
"""Three VMs at once: two Debian guests with two vCPUs each and a small kernel that beats ten times a second, each with
its own cores and memory, all at work, while one Debian guest is reset, destroyed and started again and again, at any
point of its boot: the others miss nothing, and memory comes back to the last byte.
usage: three_vms.py MACHINE [CYCLES [MINUTES]]
MINUTES: after so many no further cycle begins."""

import re
import tempfile
import time

import support
from smp_linux import initramfs_with, keep_busy, start_linux, was_busy
from support import System, check

CONFIG = """\
[vm.steady]
kernel = "vmlinuz"
initrd = "initrd"
memory.max = "192M"
autostart = false
cpuset.cpus = "{steady}"
vcpus = 2

[vm.victim]
kernel = "vmlinuz"
initrd = "initrd"
memory.max = "192M"
autostart = false
cpuset.cpus = "{victim}"
vcpus = 2

[vm.heart]
kernel = "heartbeat"
memory.max = "4M"
cpuset.cpus = "{heart}"
"""
# By the machine's cores. Core 0 manages.
CORES = {6: {"steady": "1-2", "victim": "3-4", "heart": "5"}, 4: {"steady": "1", "victim": "2", "heart": "3"}}

BEAT = re.compile(r"beat ([0-9a-f]{8}) tsc ([0-9a-f]{16}) gap ([0-9a-f]{16})\r?\n")
INTERRUPT_SECONDS = 11932 / 1193182
BEAT_SECONDS = 10 * INTERRUPT_SECONDS


class Heart:
    """All beats, collected from the scrollback before that forgets them."""

    def __init__(self, system, machine):
        self.system = system
        self.hz = system.json("clock")["tsc_hz"]
        # In Bochs time counts instructions, and nothing but the hypervisor can make an interrupt late. QEMU's cores are
        # threads of a busy host, which lets them wait, and a PIT that waits for longer than its period loses ticks.
        self.exact = not support.real_time(machine)
        self.bound = 0.002 if self.exact else 1.0
        self.beats = {}

    def collect(self):
        for match in BEAT.finditer(self.system.command("scrollback heart 1200")):
            self.beats[int(match[1], 16)] = (int(match[2], 16) / self.hz, int(match[3], 16) / self.hz)

    def judge(self, first):
        """Of the beats from `first` on: none is missing, none of their interrupts was late, and none was lost."""
        last = max(self.beats)
        check(last > first and all(number in self.beats for number in range(first, last + 1)),
              f"beats {first} to {last} are all there")
        elapsed = self.beats[last][0] - self.beats[first][0]
        expected = (last - first) * BEAT_SECONDS
        gaps = sorted(self.beats[number][1] for number in range(first + 1, last + 1))
        print(f"    {last - first} beats in {elapsed:.4f} s, {expected:.4f} s if none were late; gaps between interrupts of "
              f"{INTERRUPT_SECONDS * 1e3:.3f} ms: longest of a beat {gaps[len(gaps) // 2] * 1e3:.3f} ms in the middle, "
              f"{gaps[-1] * 1e3:.3f} ms at most", flush=True)
        check(gaps[-1] <= INTERRUPT_SECONDS + self.bound, f"no interrupt was more than {self.bound * 1e3:.0f} ms late")
        if self.exact:
            check(abs(elapsed - expected) <= self.bound, "and none was lost")


def own_things_only(system, layout):
    ranges = sorted((int(each["start"], 16), int(each["start"], 16) + each["bytes"], vm["vm"])
                    for vm in system.json("mem")["vms"] for each in vm["ranges"])
    check(len({name for _, _, name in ranges}) == 3 and
          all(before[1] <= after[0] for before, after in zip(ranges, ranges[1:])), "no two VMs share memory")
    used = {name: {row["core"] for row in system.json(f"vcpu-list {name}")} for name in layout}
    check(not any(used[a] & used[b] for a in used for b in used if a < b), f"nor cores: {used}")


def test(machine, cycles=12, minutes=600):
    end = time.monotonic() + 60 * float(minutes)
    cores = 6 if machine.startswith("epyc") else 4
    layout = CORES[cores]
    with tempfile.TemporaryDirectory() as directory:
        modules = [(support.debian_kernel(), "vmlinuz"),
                   (initramfs_with(f"{support.BUILD}/tests/guests/smp_load", directory), "initrd"),
                   (support.guest("heartbeat"), "heartbeat")]
        with System(machine, modules, CONFIG.format(**layout), memory=768, cpus=cores,
                    **support.real_time(machine)) as system:
            system.prompt()
            for name in ("steady", "victim"):
                start_linux(system, machine, name)
            own_things_only(system, layout)
            for name in ("steady", "victim"):
                system.attach(name)
                system.reach_shell(2)
                kib = int(re.search(r"MemTotal: +(\d+)", system.shell("cat /proc/meminfo"))[1])
                check(150 << 10 < kib < 192 << 10 and int(system.shell("nproc")) == 2,
                      f"{name} sees its two processors and {kib} KiB")
                system.detach()

            # The steady one is at work on both of its processors, and counts.
            keep_busy(system, "steady", 2)

            heart = Heart(system, machine)
            heart.collect()
            first = max(heart.beats)
            free = system.json("mem")["free_bytes"]
            resets = system.json("info victim")["resets"]
            done = 0
            while done < int(cycles) and time.monotonic() < end:
                cycle = done
                # Sooner and later in its boot: at once, when its kernel speaks, when its processors come up, at its shell.
                stage = (None, "Linux version", "smp: Bringing up", "Linux version")[cycle % 4]
                if "was reset" not in (answer := system.command("reset victim")):
                    raise AssertionError(f"cycle {cycle}: reset: {answer}")
                if stage is not None:
                    system.wait_until(lambda: stage in system.command("scrollback victim 400"),
                                      f"cycle {cycle}: {stage}", 600)
                system.command("destroy victim")
                if cycle % 4 == 1:
                    back = system.json("mem")["free_bytes"]
                    check(system.vm("victim")["state"] == "off" and back > free, f"destroyed: {back - free} bytes more")
                system.command("start victim")
                check(system.json("mem")["free_bytes"] == free, f"cycle {cycle}: {free} bytes free as before")
                heart.collect()
                done += 1
            check(done > 0 and system.json("info victim")["resets"] == resets + done, f"{done} resets are counted")
            heart.judge(first)

            system.attach("victim")
            system.reach_shell(2)
            said = system.shell("smp_load 2 20", 600)
            check(said.rstrip().endswith("smp_load: ok"), "the victim's last life is as good as its first")
            system.detach()
            was_busy(system, machine, "steady")
            check(system.json("info heart")["resets"] == 0 and system.vm("heart")["state"] in ("running", "blocked"),
                  "heart ran all the time")


if __name__ == "__main__":
    support.main(test)
