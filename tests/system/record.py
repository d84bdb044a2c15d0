#!/usr/bin/env python3
"""Boots Linux over the image that records exits, fetches the record by the console and replays it on the host.
usage: record.py MACHINE FILE [--exits N]
FILE gets the record of the first so many exits (default 20000)."""

import argparse
import base64
import os
import re
import subprocess

import support
from support import System, check

CONFIG = """\
[vm.linux]
kernel = "vmlinuz"
initrd = "initrd"
cmdline = "console=ttyS0"
memory.max = "128M"
autostart = false
"""


def checksum(record):
    value = 0xCBF29CE484222325
    for byte in record:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def fetch(system):
    """What the command `recording` prints, as bytes."""
    text = system.command("recording", timeout=900)
    begin = re.search(r"^recording: (\d+) bytes, (\d+) exits$", text, re.MULTILINE)
    end = re.search(r"^recording: end, checksum ([0-9a-f]{16})$", text, re.MULTILINE)
    if not begin or not end:
        raise AssertionError(f"no record: {text[-300:]}")
    record = base64.b64decode("".join(re.findall(r"^:(\S+)$", text, re.MULTILINE)))
    check(len(record) == int(begin.group(1)) and checksum(record) == int(end.group(1), 16),
          f"the record of {begin.group(2)} exits came whole: {len(record)} bytes")
    return record


def test(machine, path, *arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--exits", type=int, default=20_000)
    options = parser.parse_args(arguments)
    modules = [(support.debian_kernel(), "vmlinuz"), (support.initramfs(), "initrd")]
    image = os.path.join(support.ROOT, "build-record", "bulkhead.elf")
    with System(machine, modules, CONFIG, image=image, memory=512) as system:
        system.prompt()
        system.command(f"recording --limit={options.exits}")
        system.command("start linux")
        system.wait_until(lambda: system.json("exits linux")["total"] >= options.exits,
                          f"Linux has made {options.exits} exits", 900)
        system.command("pause linux")  # the console has the core for itself
        record = fetch(system)
    with open(path, "wb") as file:
        file.write(record)
    subprocess.run([os.path.join(support.BUILD, "replay"), path], check=True)


if __name__ == "__main__":
    support.main(test)
