#!/usr/bin/env python3
"""How the boot and the memory that the hypervisor takes grow with cores, VMs and memory, on QEMU. Prints a table; the
README's section on scale says what it shows. Memory of the machine is only promised by the host: it takes what is
touched.

Times are those of the log and count instructions of all processors together (QEMU's -icount), the waiting for clocks
and starting cores included: they show how things grow, not how long they take on a processor."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

import support  # noqa: E402

VM_MIB = 4
# Cores, GiB of memory, VMs. One of the three grows at a time; the last is all at once.
MACHINES = [(1, 1, 0), (4, 1, 0), (16, 1, 0), (64, 1, 0),
            (1, 1, 1), (1, 1, 4), (1, 1, 16), (1, 1, 64),
            (1, 16, 0), (1, 128, 0), (1, 500, 0),
            (64, 500, 64)]


def config(cores, vms):
    return "".join(f'[vm.v{number}]\nkernel = "halt"\nmemory.max = "{VM_MIB}M"\ncpuset.cpus = "{number % cores}"\n'
                   for number in range(vms))


def measure(cores, gib, vms):
    """Milliseconds of the log until the plan and until the last VM has started; bytes of the hypervisor, of a VM."""
    memory = ["-machine", "memory-backend=ram", "-object", f"memory-backend-ram,id=ram,size={gib}G,reserve=off"]
    with support.System("epyc", [(support.guest("halt"), "halt")], config(cores, vms), memory=gib << 10, cpus=cores,
                        extra=memory) as system:
        system.prompt(600)
        log = [(float(seconds) * 1000, text) for seconds, text in re.findall(r"\[ *(\d+\.\d+)\] ([^\r\n]*)", system.command("dmesg"))]
        planned = next(time for time, text in log if text.startswith("DEVICES"))
        started = [time for time, text in log if re.fullmatch(r"VM v\d+ started", text)]
        figures = system.json("mem")
        if len(started) != vms or len(figures["vms"]) != vms:
            raise AssertionError(f"{len(started)} of {vms} VMs have started")
        overheads = {vm["overhead_used_bytes"] for vm in figures["vms"]}
        system.machine.send("poweroff\r")
        system.machine.wait_end(60)
        return planned, max(started, default=planned), figures["hypervisor_bytes"], max(overheads, default=0)


def main():
    print(f"{'cores':>6}{'GiB':>6}{'VMs':>5}{'plan at ms':>12}{'all started':>13}{'hypervisor':>13}{'each VM takes':>15}")
    for cores, gib, vms in MACHINES:
        planned, started, fixed, overhead = measure(cores, gib, vms)
        print(f"{cores:>6}{gib:>6}{vms:>5}{planned:>12.1f}{started:>13.1f}{fixed:>13,}{overhead:>15,}", flush=True)


if __name__ == "__main__":
    main()
