#!/usr/bin/env python3
"""Loaded by GRUB's multiboot command, Bulkhead does what it does when loaded by multiboot2.
usage: protocols.py MACHINE"""

import re

import support
from support import System, check

CONFIG = """\
[vm.echo]
kernel = "echo"
cmdline = "one two"
memory.max = "16M"
"""


def facts(log):
    """What the log says of the machine, without times, addresses and the protocol's own module order."""
    return [re.sub(r"^\[ *[\d.]+\] ", "", line) for line in log.splitlines()
            if re.search(r"\] (processor|features|ACPI|virtualisation|VM )", line)]


def boot(machine, protocol):
    with System(machine, [(support.guest("echo"), "echo")], CONFIG, options="loglevel=info maxcpus=1", protocol=protocol,
                memory=128) as system:
        system.prompt()
        system.talks(words="spoken by " + protocol)
        check(system.json("info echo")["cmdline"] == "one two", f"{protocol}: the VM runs, with its command line")
        log = system.command("dmesg")
        check(re.search(r'module "bulkhead.toml": \d+ bytes', log) and re.search(r'module "echo": \d+ bytes', log),
              f"{protocol}: the modules have their names")
        check("HV-E13" not in log, f"{protocol}: the host's options are understood")
        memory = re.search(r"memory: (\d+) MiB usable", log)
        return facts(log), int(memory[1])


def test(machine):
    first, second = boot(machine, "multiboot"), boot(machine, "multiboot2")
    check(first == second, "both find the same machine: " + "; ".join(first[0]))


if __name__ == "__main__":
    support.main(test)
