#!/usr/bin/env python3
"""Memory above 4 GiB on both sides: a machine with 8 GiB, and in it Debian's kernel with 5 GiB around the hole below
4 GiB. The hypervisor clears and scrubs all of it. Not on Bochs, which has 2 GiB at most.
usage: big_memory.py MACHINE [GUEST_MIB]"""

import hashlib
import re
import sys
import time

import support
from support import System, check

HOST_MIB = 8192
HOLE_KIB = 3 << 20  # RAM below 4 GiB ends at 3 GiB
CONFIG = """\
[vm.big]
kernel = "vmlinuz"
initrd = "initrd"
cmdline = "console=ttyS0"
memory.max = "{}M"
"""
FILL_MIB = 32


def free_above(system):
    """KiB that are free in the guest's zone above 4 GiB."""
    zones = system.shell("grep -A1 'zone  *Normal' /proc/zoneinfo")
    return int(re.search(r"pages free +(\d+)", zones)[1]) * 4


def test(machine, guest_mib="5120"):
    if not machine.startswith("epyc"):
        support.skip("Bochs has 2 GiB of memory at most, all of it below 4 GiB")
    guest_mib = int(guest_mib)
    modules = [(support.debian_kernel(), "vmlinuz"), (support.initramfs(), "initrd")]
    began = time.monotonic()
    with System(machine, modules, CONFIG.format(guest_mib), memory=HOST_MIB) as system:
        system.prompt(600)
        print(f"the VM has started after {time.monotonic() - began:.0f} s", flush=True)
        memory = re.search(r"memory: (\d+) MiB usable, (\d+) MiB for VMs", system.command("dmesg"))
        check(int(memory[2]) > HOST_MIB - 128, f"VMs may have nearly all of {HOST_MIB} MiB: {memory[0]}")

        system.attach("big")
        system.reach_shell()
        total = int(re.search(r"MemTotal: +(\d+) kB", system.shell("cat /proc/meminfo"))[1])
        check(0.94 * guest_mib < total / 1024 <= guest_mib, f"the guest has {total} KiB of {guest_mib} MiB")
        ram = re.findall(r"([0-9a-f]+)-([0-9a-f]+) : System RAM", system.shell("grep RAM /proc/iomem"))
        ram = [(int(start, 16), int(end, 16) + 1) for start, end in ram]
        check(ram[-1] == (1 << 32, (1 << 32) + (guest_mib << 20) - (HOLE_KIB << 10)),
              "what is beyond 3 GiB lies above 4 GiB")
        check(all(end <= HOLE_KIB << 10 for _, end in ram[:-1]), "below, RAM ends at 3 GiB")

        # Linux takes the highest memory first.
        system.shell("mkdir /big")
        system.shell("mount -t tmpfs none /big")
        before = free_above(system)
        system.shell(f"yes bulkhead | head -c {FILL_MIB << 20} > /big/file", timeout=600)
        taken = (before - free_above(system)) / 1024
        check(taken > 0.9 * FILL_MIB, f"a file of {FILL_MIB} MiB takes {taken:.0f} MiB above 4 GiB")
        content = (b"bulkhead\n" * ((FILL_MIB << 20) // 9 + 1))[:FILL_MIB << 20]
        check(hashlib.md5(content).hexdigest() in system.shell("md5sum /big/file", timeout=600), "and is intact")
        system.detach()
        began = time.monotonic()
        check("was destroyed" in system.command("destroy big", 600),
              f"its memory is scrubbed in {time.monotonic() - began:.0f} s")
        system.machine.send("poweroff\r")
        system.machine.wait_end(60)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    support.main(test)
