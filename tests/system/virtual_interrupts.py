#!/usr/bin/env python3
"""Interrupts between vCPUs, to one that spins, one that halts, and three at once, all answered: as Bulkhead delivers them
by default, and where the processor can do it itself, by virtual interrupt delivery. (Bochs can, but gets it wrong when an
interrupt of the host's comes to the core as well, so that it has to be asked for there. None does here.)
usage: virtual_interrupts.py MACHINE"""

import support
from support import System, check

VM = """\
[vm.of{vcpus}]
kernel = "smp_latency"
memory.max = "8M"
vcpus = {vcpus}
cpuset.cpus = "1-{vcpus}"
autostart = false
"""
RUNS = {"one that spins": "02", "one that halts": "12", "three at once": "24"}
BY_PROCESSOR = "it delivers guests' interrupts"


def answers(machine, options, by_processor):
    with System(machine, [(support.guest("smp_latency"), "smp_latency")], VM.format(vcpus=2) + VM.format(vcpus=4), memory=256,
                cpus=5, options=options, **support.real_time(machine)) as system:
        system.prompt()
        said = BY_PROCESSOR in system.command("dmesg")
        check(said == by_processor, f"the processor {'delivers' if by_processor else 'does not deliver'} guests' interrupts")
        for what, words in RUNS.items():
            vm = f"of{words[1]}"
            system.command(f"set {vm} cmdline {words}")
            check(f"VM {vm} started" in system.command(f"start {vm}"), f"{vm} starts")
            system.attach(vm)
            # The guest waits for each answer before it goes on.
            ended = system.expect("smp_latency: end", 300)
            system.detach()
            check(ended, f"all interrupts to {what} are answered")
            check(f"VM {vm} was destroyed" in system.command(f"destroy {vm}"), f"{vm} is gone")


def test(machine):
    answers(machine, "", False)
    if machine == "skylake":
        answers(machine, "virtual-interrupts=on", True)


if __name__ == "__main__":
    support.main(test)
