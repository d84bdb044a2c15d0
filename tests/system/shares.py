#!/usr/bin/env python3
"""Shares of a core: weights and caps, also changed at run time, give what they say; a gang's vCPUs start together, which
a guest that passes a lock around among them is measurably better for.
usage: shares.py MACHINE [shares|gang]"""

import support
from support import System, check

CONFIG = """\
[vm.light]
kernel = "busy"
memory.max = "8M"
cpuset.cpus = "1"
cpu.weight = 100
[vm.heavy]
kernel = "busy"
memory.max = "8M"
cpuset.cpus = "1"
cpu.weight = 300
[vm.capped]
kernel = "busy"
memory.max = "8M"
cpuset.cpus = "2"
cpu.max = "20000 100000"
[vm.tickets]
kernel = "tickets"
memory.max = "8M"
vcpus = {vcpus}
cpuset.cpus = "{cores}"
autostart = false
""" + "".join(f"""\
[vm.other{core}]
kernel = "busy"
memory.max = "8M"
cpuset.cpus = "{core}"
autostart = false
""" for core in range(4))

MODULES = [(support.guest(name), name) for name in ("busy", "tickets")]
HAND_OVERS = 0x200000  # tests/guests/tickets.asm
# How many vCPUs the gang has, and the cores it shares with VMs that only compute. In QEMU each core is a thread of the
# host's: more than the host has processors cannot run at the same time, whatever Bulkhead does, so there it is two.
GANGS = {"skylake": (4, (0, 1, 2, 3)), "epyc": (2, (1, 2))}
SKEW_LIMIT = {"skylake": 1_000_000, "epyc": 5_000_000}  # ns, between its first vCPU and its last, on average


def config(machine):
    vcpus, cores = GANGS[machine]
    return CONFIG.format(vcpus=vcpus, cores=f"{cores[0]}-{cores[-1]}")


def sample(system, vms):
    """Seconds of the machine's clock, then of processor time by VM. What is between the questions is the error."""
    clock = system.json("clock")
    used = {vm["name"]: vm["cpu_seconds"] for vm in system.json("list")}
    return [clock["tsc"] / clock["tsc_hz"]] + [used[vm] for vm in vms]


def over(system, seconds, vms):
    """What the VMs use in so many seconds of the machine's: the seconds it took, then theirs."""
    before = sample(system, vms)
    system.command(f"wait {seconds}", timeout=600)
    return [after - earlier for after, earlier in zip(sample(system, vms), before)]


def shares(system, seconds, percent, cap, slack):
    """light gets `percent` of core 1, capped `cap` of core 2. slack: of the latter, in points."""
    took, light, heavy, capped = over(system, seconds, ("light", "heavy", "capped"))
    part = 100 * light / (light + heavy)
    check(abs(part - percent) <= 2, f"of core 1, light gets {part:.2f} % and heavy {100 - part:.2f} % in {took:.2f} s; "
                                    f"{percent} and {100 - percent} are due")
    used = 100 * (light + heavy) / took
    check(90 < used < 105, f"and nothing of it is left unused ({used:.2f} %)")
    check(abs(100 * capped / took - cap) <= slack, f"of core 2, capped gets {100 * capped / took:.2f} %; {cap} are due")


def hand_overs(system):
    answer = system.json(f"x tickets {HAND_OVERS:#x} 1 --unit 8 --physical")
    return int.from_bytes(bytes.fromhex(answer["memory"][0]["bytes"]), "little")


def rate(system, seconds, vcpus):
    """Hand-overs in a second of each vCPU's processor time."""
    before = hand_overs(system)
    took, used = over(system, seconds, ["tickets"])
    count = hand_overs(system) - before
    print(f"tickets: {count} hand-overs in {took:.2f} s and {used:.2f} s of processor time", flush=True)
    return count * vcpus / used


def weights_and_caps(machine):
    # In real time: where QEMU counts instructions its cores wait for each other, most of all just after an exit, and
    # what a guest is charged for and what it uses are two things.
    with System(machine, MODULES, config(machine), memory=256, cpus=4, **support.real_time(machine)) as system:
        system.prompt()
        shares(system, 10, percent=25, cap=20, slack=1)
        for line in ("light cpu.weight 300", "heavy cpu.weight 100", "capped cpu.max '10000 100000'"):
            system.command("set " + line)
        # Over so short a time, where the samples fall within the cap's periods counts.
        shares(system, 4, percent=75, cap=10, slack=4)
        system.command("set capped cpu.max 'max 100000'")
        took, capped = over(system, 2, ["capped"])
        check(capped / took > 0.9, f"without its cap it gets {100 * capped / took:.2f} %")


def gang(machine):
    with System(machine, MODULES, config(machine), memory=256, cpus=4, **support.real_time(machine)) as system:
        system.prompt()
        for vm in ("light", "heavy", "capped"):
            check("was destroyed" in system.command(f"destroy {vm}"), f"{vm} is destroyed")
        vcpus, cores = GANGS[machine]
        for vm in [f"other{core}" for core in cores] + ["tickets"]:
            system.command(f"start {vm}")
        system.hears("tickets", "tickets: all vCPUs take turns")
        alone = rate(system, 2, vcpus)
        check("gang" not in system.json("info tickets"), "not a gang yet")
        system.command("set tickets cpu.gang true")
        system.command("wait 1", timeout=600)
        together = rate(system, 2, vcpus)
        skew = system.json("info tickets")["gang"]
        print(f"gang: {skew}", flush=True)
        check(skew["starts"] > 10, f"the gang started {skew['starts']} times")
        check(skew["mean_skew_nanoseconds"] < SKEW_LIMIT[machine],
              f"its vCPUs within {skew['mean_skew_nanoseconds'] / 1000:.1f} us of each other on average, "
              f"{skew['greatest_skew_nanoseconds'] / 1000:.1f} us at most")
        check(together > 1.3 * alone, f"{together:.0f} hand-overs a second as a gang, {alone:.0f} otherwise "
                                      f"({together / alone:.2f} times as many)")


def test(machine, part="all"):
    if part in ("all", "shares"):
        weights_and_caps(machine)
    if part in ("all", "gang"):
        gang(machine)


if __name__ == "__main__":
    support.main(test)
