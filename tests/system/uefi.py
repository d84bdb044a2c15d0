#!/usr/bin/env python3
"""A UEFI machine (QEMU's q35 with OVMF): Bulkhead is loaded by GRUB for UEFI, finds ACPI where that says it is, shows its
log on the graphics screen, and runs a VM. Only AMD-V: Bochs has no UEFI.
usage: uefi.py epyc-uefi"""

import re

import support
from support import System, check

CONFIG = """\
[vm.echo]
kernel = "echo"
memory.max = "16M"
"""


def picture(path):
    """Width, height and pixel bytes of a binary PPM file."""
    with open(path, "rb") as file:
        content = file.read()
    header = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", content)
    return int(header[1]), int(header[2]), content[header.end():]


def shows_text(machine):
    """True if the screen holds several rows of light text on dark ground."""
    path = machine.path("screen.ppm")
    machine.screendump(path)
    width, height, pixels = picture(path)
    rows = [pixels[y * width * 3:(y + 1) * width * 3] for y in range(height)]
    light = [sum(1 for value in row[::3] if value > 100) for row in rows]
    # A row of pixels that cuts through text has some light pixels, never most; between lines there are dark ones.
    text_rows = sum(1 for count in light if 4 < count < width * 6 // 10)
    dark_rows = sum(1 for count in light if count == 0)
    return text_rows >= 30 and dark_rows >= 30


def test(machine):
    with System(machine, [(support.guest("echo"), "echo")], CONFIG, memory=512) as system:
        system.prompt(300)
        log = system.command("dmesg")
        acpi = re.search(r"ACPI: (\d+) processor\(s\), (\d+) I/O APIC\(s\), power-off (yes|no)", log)
        check(acpi and acpi.groups() == ("1", "1", "yes"), "ACPI is found: " + acpi[0])
        check("HV-E12" not in log, "all of its tables are good")
        check(re.search(r"TSC: [\d.]+ MHz by PM timer", log), "the PM timer that it names works")
        check("virtualisation: AMD-V" in log, "AMD-V is on")
        system.talks()
        system.wait_until(lambda: shows_text(system.machine), "the screen shows the log")
        system.machine.send("poweroff\r")
        check(system.machine.wait_end() == 0, "poweroff ends the machine")


if __name__ == "__main__":
    support.main(test)
