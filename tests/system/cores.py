#!/usr/bin/env python3
"""All processors of a machine become cores, each answers, and a guest runs; host option maxcpus leaves some out.
usage: cores.py MACHINE COUNT"""

import re

import support
from support import System, check

CONFIG = """\
[vm.echo]
kernel = "echo"
memory.max = "8M"
"""
MODULES = [(support.guest("echo"), "echo")]


def lines(system):
    """What the log says of each core, by number."""
    return {int(number): (int(apic_id), rest.rstrip("\r"))
            for number, apic_id, rest in re.findall(r"core (\d+): APIC ID (\d+), ([^\n]*)", system.command("dmesg"))}


def test(machine, count):
    count = int(count)
    with System(machine, MODULES, CONFIG, memory=256, cpus=count) as system:
        system.prompt()
        cores = lines(system)
        check(sorted(cores) == list(range(count)), f"{count} cores are listed")
        check(all(rest == "online" for _, rest in cores.values()), "all are online")
        check(len({apic_id for apic_id, _ in cores.values()}) == count, "each has an APIC ID of its own")
        check("HV-E04" not in system.machine.text(), "none was late or fell silent")
        system.talks()

    with System(machine, MODULES, CONFIG, memory=256, cpus=4, options="maxcpus=3") as system:
        system.prompt()
        cores = lines(system)
        check([rest for _, rest in cores.values()] ==
              ["online"] * 3 + ["offline: host option maxcpus=3 leaves it out"], "maxcpus=3 leaves out one of four cores")
        system.talks()


if __name__ == "__main__":
    support.main(test)
