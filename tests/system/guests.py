#!/usr/bin/env python3
"""Kernels that are not Linux, unmodified packages of Debian, side by side: memtest86+ tests its memory without an error,
GNU Mach starts as far as it can without servers, GRUB Invaders draws its screen and keeps running.
usage: guests.py MACHINE"""

import os
import re

import support
from support import System, check

CONFIG = """\
[vm.memtest]
kernel = "memtest"
cmdline = "console=ttyS0,115200"
memory.max = "24M"
autostart = false

[vm.mach]
kernel = "mach"
cmdline = "mach console=com0"
memory.max = "64M"

[vm.invaders]
kernel = "invaders"
memory.max = "16M"
autostart = false
"""

PACKAGES = {
    "memtest": ("memtest86+", "boot/memtest86+x64.bin"),
    "mach": ("gnumach-image-1.8-486", "boot/gnumach-1.8-486.gz"),  # GRUB unpacks it
    "invaders": ("grub-invaders", "boot/invaders.exec"),
}


def kernel(name):
    package, path = PACKAGES[name]
    return os.path.join(support.guest_images.debian_package(package, support.GUESTS), path)


def test(machine):
    modules = [(kernel(name), name) for name in PACKAGES]
    with System(machine, modules, CONFIG, memory=256, **support.real_time(machine)) as system:
        system.prompt()
        system.attach("mach")
        system.expect("GNU Mach")
        system.expect("No bootstrap code loaded with the kernel!", 300)
        print("ok: GNU Mach gets as far as on a bare machine", flush=True)
        system.detach()
        system.command("destroy mach")

        system.command("start invaders")
        used = system.vm("invaders")["cpu_seconds"]
        system.wait_until(lambda: system.vm("invaders")["state"] in ("running", "blocked") and
                          system.vm("invaders")["cpu_seconds"] > used, "GRUB Invaders runs")
        check(system.json("info invaders")["resets"] == 0, "without a reset")
        system.command("destroy invaders")

        system.command("start memtest")
        system.attach("memtest")
        system.expect("Memtest86")
        system.expect(r"#([4-9]|10) +\[")  # it shows where it is every two seconds, and not every test
        system.expect(r"Pass: +\d+ +Errors: 0 ", 300)
        system.detach()
        check(not re.search(r"Errors: [1-9]", system.machine.text()), "memtest86+ finds no error in its first tests")
        check(system.vm("memtest")["state"] in ("running", "blocked"), "memtest86+ runs")
        check(system.json("info memtest")["resets"] == 0, "without a reset")


if __name__ == "__main__":
    support.main(test)
