#!/usr/bin/env python3
"""Debian's cloud kernel, unmodified, under Bulkhead: boots to a shell, prints no error or warning that it does not
print on the bare machine, keeps time, powers off, starts again, can be reset at any time.
usage: linux.py MACHINE [quick]"""

import os
import re
import sys

import support
from support import System, check

CONFIG = """\
[vm.linux]
kernel = "vmlinuz"
initrd = "initrd"
cmdline = "console=ttyS0"
memory.max = "256M"
"""

BASELINES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "baselines")


def normalise(line):
    """A kernel message without what differs from boot to boot: time stamp, addresses, numbers."""
    line = re.sub(r"^<\d+>\[ *\d+\.\d+\] ", "", line)
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "#", line).strip()


def warnings(dmesg):
    """Error and warning messages (level 4 and more urgent) of a raw dmesg."""
    return [line for line in dmesg.splitlines() if re.match(r"<[0-4]>", line)]


def baseline(machine):
    """What the bare machine prints; None where that has not been captured (capture_baseline.py)."""
    path = os.path.join(BASELINES, machine + ".dmesg")
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return {normalise(line) for line in warnings(file.read())}


def seconds_of_day(text):
    match = re.search(r"(\d\d):(\d\d):(\d\d)", text)
    return int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])


def test(machine, extent="full"):
    modules = [(support.debian_kernel(), "vmlinuz"), (support.initramfs(), "initrd")]
    with System(machine, modules, CONFIG, memory=1024) as system:
        system.prompt()
        system.attach("linux")
        system.reach_shell()
        check("Debian" in system.shell("uname -a"), "uname -a names Debian's kernel")
        cpuinfo = system.shell("cat /proc/cpuinfo")
        check(cpuinfo.count("processor") == 1 and "model name" in cpuinfo, "/proc/cpuinfo shows one processor")

        known = baseline(machine)
        dmesg = system.shell("dmesg -r")
        check("Linux version" in dmesg, "dmesg is whole")
        messages = warnings(dmesg)
        if known is None:
            print(f"not compared, as there is no baseline of {machine}:\n" + "\n".join(messages))
        else:
            new = [line for line in messages if normalise(line) not in known]
            check(not new, "no error or warning in the guest's dmesg that the bare machine does not print" +
                  ("" if not new else ", but:\n" + "\n".join(new)))

        # Time: the guest's clock against the machine's own real-time clock, which Bulkhead reads.
        def clocks():
            guest_seconds = float(system.shell("cat /proc/uptime").split()[0])
            date = seconds_of_day(system.shell("date -u"))
            system.detach()
            host = re.search(r"machine clock: ([\d:]{8}) UTC .*TSC (\d+) at (\d+) Hz", system.command("clock"))
            system.attach("linux")
            return guest_seconds, seconds_of_day(host[1]), int(host[2]) / int(host[3]), date

        if extent == "full":
            before = clocks()
            system.shell("sleep 5; sleep 5; sleep 5; sleep 5", timeout=600)
            after = clocks()
            guest_elapsed = after[0] - before[0]
            machine_elapsed = (after[1] - before[1]) % 86400
            tsc_elapsed = after[2] - before[2]
            print(f"guest {guest_elapsed:.2f} s, machine's RTC {machine_elapsed} s, TSC {tsc_elapsed:.2f} s")
            check(abs(guest_elapsed - tsc_elapsed) <= 0.01 * tsc_elapsed, "guest time and TSC agree within 1 %")
            # The RTC shows whole seconds: one at each end may be missing.
            check(abs(machine_elapsed - guest_elapsed) <= 0.01 * guest_elapsed + 1,
                  "guest time and the machine's RTC agree within 1 % and the RTC's second")
            # Not their absolute values: until Linux has its clock source, a slow machine's ticks get lost, bare as well.
            date_elapsed = (after[3] - before[3]) % 86400
            check(abs(date_elapsed - machine_elapsed) <= 0.01 * machine_elapsed + 1,
                  "the guest's date and the machine's RTC advance alike")

        system.machine.send("poweroff\r")
        # A guest that says much at its end may still be talking when its end is announced.
        system.expect("VM linux stopped", timeout=300)
        system.detach()
        check(re.search(r"linux\s.*---s--", system.command("list")), "list shows the VM as shut down")

        check("started" in system.command("start linux"), "it can be started again")
        check(system.vm("linux")["state"] in ("running", "blocked"), "then it runs")
        check("was reset" in system.command("reset linux"), "it can be reset while its kernel boots")
        system.command("destroy linux")
        check(re.search(r"linux\s.*------", system.command("list")), "destroyed, it is off")
        # A new life, with nothing left on its console of the one before.
        system.command("start linux")
        system.attach("linux")
        system.expect("Linux version", timeout=300)
        if extent == "full":
            system.reach_shell()
            check("Debian" in system.shell("uname -a"), "the second life reaches its shell, too")
        system.detach()
        system.machine.send("poweroff\r")
        system.machine.wait_end(60)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    support.main(test)
