#!/usr/bin/env python3
"""The debug build (build-debug, made by scripts/test) boots and runs a VM. Skipped where it was not built.
usage: debug_build.py MACHINE"""

import os

import support
from support import System, check

IMAGE = os.path.join(support.ROOT, "build-debug", "bulkhead.elf")
CONFIG = """\
[vm.echo]
kernel = "echo"
memory.max = "16M"
"""


def test(machine):
    if not os.path.exists(IMAGE):
        support.skip(f"there is no {IMAGE}")
    with System(machine, [(support.guest("echo"), "echo")], CONFIG, image=IMAGE, memory=128) as system:
        system.prompt()
        system.talks()
        check("was reset" in system.command("reset echo"), "the VM can be reset")
        check("was destroyed" in system.command("destroy echo"), "and destroyed")
        check("VM echo started" in system.command("start echo"), "and started")
        check(system.json("list")[0]["state"] == "running", "and runs")


if __name__ == "__main__":
    support.main(test)
