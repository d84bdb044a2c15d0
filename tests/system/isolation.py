#!/usr/bin/env python3
"""No VM reaches another's memory: all page tables are walked, and loads tried on the cores of each of three VMs while
they run. Then VMs come and go, and everything they held is free again.
usage: isolation.py MACHINE [CYCLES]"""

import support
from support import System, check

CONFIG = """\
[vm.busy]
kernel = "busy"
memory.max = "8M"
cpuset.cpus = "1"
[vm.two]
kernel = "busy"
memory.max = "16M"
vcpus = 2
cpuset.cpus = "2-3"
[vm.heart]
kernel = "heartbeat"
memory.max = "8M"
cpuset.cpus = "0"
[vm.tiny]
kernel = "busy"
memory.max = "2M"
cpuset.cpus = "1"
autostart = false
"""

MODULES = [(support.guest(name), name) for name in ("busy", "heartbeat")]


def counts(system):
    """What has to be the same again."""
    return system.json("mem"), system.json("integrity"), [core["vcpus"] for core in system.json("cpus")]


def test(machine, cycles="40"):
    with System(machine, MODULES, CONFIG, memory=256, cpus=4, **support.real_time(machine)) as system:
        system.prompt()
        system.hears("busy", "busy: computing for ever")
        report = system.json("isolation")
        check(report["isolated"] and report["leak_count"] == 0 and report["leaks"] == [],
              f"{report['tables']} page tables with {report['mappings']} mappings lead to no other VM's memory")
        check(report["tables"] == 7, "those are the kernel's, and two of each VM")
        viewers = {each["viewer"]: (each["cores"], each["loads"], each["isolated"]) for each in report["viewers"]}
        # 2 MiB each, and the last byte of each run: the arena's and the RAM's.
        reads = {"busy": 1 + 4 + 2, "two": 1 + 8 + 2, "heart": 1 + 4 + 2}
        total = sum(reads.values())
        check(viewers["the kernel"] == (4, 4 * total, True), f"{4 * total} loads in the kernel's address space fault")
        for vm, cores in (("busy", 1), ("two", 2), ("heart", 1)):
            loads = cores * (total - reads[vm])
            check(viewers[vm] == (cores, loads, True), f"{loads} loads on {cores} core(s) that serve {vm} fault")
        print(system.command("isolation"), end="", flush=True)
        system.runs("busy")

        if int(cycles) > 1000:  # the emulator has enough to do
            for vm in ("busy", "two", "heart"):
                system.command(f"pause {vm}")
        before = counts(system)
        result = system.json(f"repeat {cycles} start tiny; destroy tiny", timeout=20000)
        check(result["done"] == int(cycles) and "error" not in result,
              f"a VM came and went {result['done']} times in {result['seconds']} s {result.get('error', '')}")
        check(counts(system) == before, f"as much is free as before: {before[0]['free_bytes']} bytes; the counts are the same")
        check(system.json("isolation")["isolated"], "and nobody reaches another's memory")


if __name__ == "__main__":
    support.main(test)
