#!/usr/bin/env python3
"""Debian's cloud kernel with several processors, each on a core of its own where there are enough: all come up, all
work at the same time and compute the same, see each other's changes to page tables, agree about the time, and the
kernel has nothing to complain about.
usage: smp_linux.py MACHINE VCPUS [CORES [ROUNDS]]
CORES: of the machine, default VCPUS + 1, so that each has one besides the console's; with fewer they are shared.
ROUNDS: how much smp_load does."""

import gzip
import os
import re
import shutil
import subprocess
import tempfile

import support
from linux import baseline, normalise, warnings
from support import System, check

CONFIG = """\
[vm.linux]
kernel = "vmlinuz"
initrd = "initrd"
memory.max = "256M"
vcpus = {vcpus}
autostart = false
{cpuset}
"""
# What the kernel says when it or the machine below it is broken, at whatever level.
ALARMS = (r"\bBUG\b|soft lockup|hard LOCKUP|rcu.*stall|WARNING: CPU|unable to handle|Oops|panic|Call Trace|"
          r"failed to come online|not responding|unsynchronized|\bstuck\b|APIC error")


def initramfs_with(*files):
    """The suite's initramfs and these files in /bin; the last argument is a directory to work in. Linux unpacks
    archives that follow each other; GRUB takes one that is compressed as a whole."""
    *files, directory = files
    os.makedirs(os.path.join(directory, "bin"))
    names = [os.path.join("bin", os.path.basename(file)) for file in files]
    for file, name in zip(files, names):
        shutil.copy(file, os.path.join(directory, name))
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=directory,
                             input="".join(name + "\n" for name in names).encode(), check=True,
                             capture_output=True).stdout
    path = os.path.join(directory, "initrd")
    with gzip.open(support.initramfs()) as first, gzip.open(path, "wb", 1) as file:
        file.write(first.read() + archive)
    return path


def start_linux(system, machine, name, words="console=ttyS0"):
    """Starts a VM that runs Linux. In real time, on a busy host, the kernel would mismeasure its timers, and lose
    itself: there it is told the TSC's frequency as the machine's was measured. (TCG's TSC is the host's.)"""
    if "icount" in support.real_time(machine):
        words += f" tsc_early_khz={system.json('clock')['tsc_hz'] // 1000} tsc=reliable"
    system.command(f"set {name} cmdline {words}")
    check(f"VM {name} started" in system.command(f"start {name}"), f"{name} starts")


def keep_busy(system, name, vcpus):
    """Has a Linux at its shell do one load after the other, on all its processors, and count those that went well."""
    system.attach(name)
    system.shell(f"(n=0; while smp_load {vcpus} 40 > /tmp/last; do n=$((n + 1)); echo $n > /tmp/runs; done; "
                 "cp /tmp/last /tmp/failed) & true")
    system.detach()


def was_busy(system, machine, name):
    """What keep_busy() began went well all the time."""
    system.attach(name)
    runs = int(system.shell("cat /tmp/runs").split()[-1])
    check(runs > 0 and "No such file" in system.shell("cat /tmp/failed"), f"{name} completed {runs} loads, none failed")
    complaints(system, machine)
    system.detach()
    check(system.json(f"info {name}")["resets"] == 0 and system.vm(name)["state"] in ("running", "blocked"),
          f"{name} ran all the time")


# A Linux for the core given, beside something hostile; its modules, for which `directory` is to work in.
BYSTANDER = """
[vm.linux]
kernel = "vmlinuz"
initrd = "initrd"
memory.max = "192M"
autostart = false
cpuset.cpus = "{core}"
"""


def bystander_modules(directory):
    return [(support.debian_kernel(), "vmlinuz"),
            (initramfs_with(f"{support.BUILD}/tests/guests/smp_load", directory), "initrd")]


def start_bystander(system, machine):
    start_linux(system, machine, "linux")
    system.attach("linux")
    system.reach_shell(1)
    system.detach()
    keep_busy(system, "linux", 1)


def interrupts(system, vcpus):
    """/proc/interrupts: counts per processor, by name of the row."""
    rows = {}
    for line in system.shell("cat /proc/interrupts").splitlines():
        if match := re.match(r" *(\w+):((?: +\d+)+)", line):
            rows[match[1]] = [int(count) for count in match[2].split()][:vcpus]
    return rows


def all_up(system, vcpus):
    check(int(system.shell("nproc")) == vcpus, f"nproc: {vcpus}")
    expected = f"0-{vcpus - 1}" if vcpus > 1 else "0"
    check(system.shell("cat /sys/devices/system/cpu/online").strip() == expected, f"online: {expected}")
    cpuinfo = system.shell("cat /proc/cpuinfo")
    check(sorted(map(int, re.findall(r"^processor\s*: (\d+)", cpuinfo, re.MULTILINE))) == list(range(vcpus)),
          "/proc/cpuinfo has them")
    apic_ids = re.findall(r"^apicid\s*: (\d+)", cpuinfo, re.MULTILINE)
    check(len(set(apic_ids)) == vcpus, "each with an APIC ID of its own")
    check(re.search(r"^cpu cores\s*: (\d+)", cpuinfo, re.MULTILINE)[1] == str(vcpus) and
          set(re.findall(r"^siblings\s*: (\d+)", cpuinfo, re.MULTILINE)) == {str(vcpus)},
          "as cores of one processor")


def load(system, vcpus, rounds):
    before = interrupts(system, vcpus)
    # A pipe between two programs on each processor, all at the same time.
    system.shell(f"i=0; while [ $i -lt {vcpus} ]; do taskset $(printf %x $((1 << i))) "
                 f"sh -c 'dd if=/dev/zero bs=4k count={rounds} 2>/dev/null | md5sum' > /tmp/sum$i & "
                 "i=$((i + 1)); done; wait", 600)
    sums = system.shell("cat /tmp/sum*").split("\n")
    check(len(set(line for line in sums if line)) == 1 and len([line for line in sums if line]) == vcpus,
          f"{vcpus} pinned pipelines end with the same sum")
    said = system.shell(f"smp_load {vcpus} {rounds}", 900)
    print("".join(f"    {line}\n" for line in said.splitlines()), end="", flush=True)
    check(said.rstrip().endswith("smp_load: ok"), "smp_load finds nothing wrong")
    after = interrupts(system, vcpus)
    grown = {name: [now - then for then, now in zip(before.get(name, [0] * vcpus), counts)]
             for name, counts in after.items()}
    for name in ("LOC",) + (("RES", "CAL", "TLB") if vcpus > 1 else ()):
        check(len(grown[name]) == vcpus and all(count > 0 for count in grown[name]),
              f"{name} interrupts on each processor: {grown[name]}")
    check(all(count == 0 for name in ("ERR", "MIS") for count in after.get(name, [])), "no spurious ones")


def complaints(system, machine):
    """In real time, on a busy host, the kernel notices that time jumps: there only what cannot come of that counts."""
    dmesg = system.shell("dmesg -r")
    known = baseline(machine) or set()
    lines = [line for line in dmesg.splitlines() if re.search(ALARMS, line)]
    if not support.real_time(machine):
        lines += warnings(dmesg)
    new = [line for line in lines if normalise(line) not in known]
    check("Linux version" in dmesg and not new,
          "nothing alarming in the guest's dmesg" + ("" if not new else ", but:\n" + "\n".join(new)))


def test(machine, vcpus, cores=None, rounds=None):
    vcpus = int(vcpus)
    cores = int(cores) if cores else vcpus + 1
    rounds = int(rounds) if rounds else 300 if "icount" not in support.real_time(machine) else 100
    cpuset = f'cpuset.cpus = "1-{vcpus}"' if cores > vcpus else ""
    with tempfile.TemporaryDirectory() as directory:
        modules = [(support.debian_kernel(), "vmlinuz"),
                   (initramfs_with(os.path.join(support.BUILD, "tests/guests/smp_load"), directory), "initrd")]
        with System(machine, modules, CONFIG.format(vcpus=vcpus, cpuset=cpuset), memory=1024, cpus=cores,
                    **support.real_time(machine)) as system:
            system.prompt()
            start_linux(system, machine, "linux")
            system.attach("linux")
            system.reach_shell(vcpus)
            all_up(system, vcpus)
            load(system, vcpus, rounds)
            complaints(system, machine)
            system.detach()

            listed = system.json("vcpu-list linux")
            print(system.command("vcpu-list linux"), flush=True)
            check(len(listed) == vcpus and all(row["cpu_seconds"] > 0 for row in listed), "vcpu-list shows each at work")
            if cores > vcpus:
                check([row["core"] for row in listed] == list(range(1, vcpus + 1)), "each on its own core")
            print(system.command("exits linux"), flush=True)
            system.attach("linux")
            system.machine.send("poweroff\r")
            system.expect("VM linux stopped: powered off", timeout=300)
            system.detach()
            check(system.vm("linux")["state"] == "shut down", "and all are gone after poweroff")


if __name__ == "__main__":
    support.main(test)
