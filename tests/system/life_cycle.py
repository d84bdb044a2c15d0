#!/usr/bin/env python3
"""The life cycle by console on a live machine, around a Linux guest with two vCPUs: VMs made from a module and typed,
renamed, set, pinned; paused without the guest noticing; its screen, keyboard and power button; a triple fault of the
whole SMP guest, honouring on_reboot. Another VM's heart beats all the while and misses nothing.
usage: life_cycle.py MACHINE"""

import glob
import os
import re
import tempfile

import support
from smp_linux import complaints, initramfs_with, start_linux
from support import System, check
from three_vms import Heart

CONFIG = """\
[vm.linux]
kernel = "vmlinuz"
initrd = "initrd"
memory.max = "192M"
autostart = false
vcpus = 2
cpuset.cpus = "1-2"
on_reboot = "preserve"

[vm.heart]
kernel = "heartbeat"
memory.max = "4M"
cpuset.cpus = "3"
"""

MADE = """\
[vm.made]
kernel = "echo"
memory.max = "4M"
autostart = false
cpuset.cpus = "0"
"""


def comes_up(system):
    # Among its last lines, that is in this life of its: what it said in an earlier one is kept, too.
    system.wait_until(lambda: re.search("guest is up: 6[.]1[^,]*, 2 CPU", system.command("scrollback linux 12")),
                      "Linux comes up with its two processors", 900)
    system.attach("linux")
    system.expect("guest# ")
    system.machine.send("\r")  # what is typed before the shell is ready may be lost
    system.expect("guest# ")
    system.detach()


def definitions(system):
    """create, rename, set: of VMs that are off and of one that runs."""
    check("created" in system.command("create made.toml") and system.vm("made")["state"] == "off",
          "create takes a config from a module")
    system.machine.send("create\r")
    for line in ("[vm.typed]", 'kernel = "echo"', 'memory.max = "4M"', 'on_reboot = "destroy"', 'cpuset.cpus = "0"'):
        system.expect("config> ")
        system.machine.send(line + "\r")
    system.expect("config> ")
    system.machine.send(".\r")
    system.expect("\ncreated\r\n")
    system.prompt()
    system.wait_until(lambda: system.vm("typed")["state"] in ("running", "blocked"), "and typed, starting at once")
    check(system.json("info typed")["on_reboot"] == "destroy", "with what was typed")

    check("renamed to other" in system.command("rename typed other"), "rename, while it runs")
    check("no VM" in system.command("info typed") or "unknown" in system.command("info typed"), "the old name is gone")
    system.talks("other", "still here")
    check("another VM" in system.command("rename other heart"), "no two VMs have one name")

    check("destroy it first" in system.command("set other memory.max 8M"), "memory.max is not set while it runs")
    check("was destroyed" in system.command("destroy other"), "destroy")
    check("memory.max is now 8M" in system.command("set other memory.max 8M"), "then it can be set")
    check("cmdline is now" in system.command("set other cmdline 'two words'"), "and the command line")
    check("VM other started" in system.command("start other"), "start")
    info = system.json("info other")
    check(info["memory_bytes"] == 8 << 20 and info["cmdline"] == "two words", "with both")
    check("cpu.weight is now 300" in system.command("set other cpu.weight 300"), "cpu.weight, while it runs")
    check("cpu.weight" in system.command("set other cpu.weight 0"), "not to nonsense")
    check(system.json("info other")["cpu.weight"] == 300, "which changes nothing")
    for name in ("made", "other"):
        if system.vm(name)["state"] != "off":
            system.command(f"destroy {name}")


def pins(system):
    """The guest's processors change cores while they work."""
    system.attach("linux")
    system.shell("smp_load 2 30 > /tmp/moved 2>&1 & true")
    system.detach()
    for vcpu, core in ((0, 2), (1, 1), (0, 0), (1, 0), (0, 1), (1, 2)):
        system.command(f"vcpu-pin linux {vcpu} {core}")
        row = system.json("vcpu-list linux")[vcpu]
        check(row["core"] == core, f"vCPU {vcpu} is on core {core}")
    check("offline" in system.command("vcpu-pin linux 0 9") or "core" in system.command("vcpu-pin linux 0 9"),
          "not on a core that is not there")
    check(system.json("vcpu-list linux")[0]["core"] == 1, "which changes nothing")
    system.attach("linux")
    system.shell("wait", 600)
    check(system.shell("cat /tmp/moved").rstrip().endswith("smp_load: ok"), "the load on both never noticed")
    system.detach()


def pauses(system):
    """The guest's clocks stand still, and go on."""
    system.attach("linux")
    system.shell("smp_load 2 30 > /tmp/paused 2>&1 & true")
    before = float(system.shell("cat /proc/uptime").split()[0])
    system.detach()
    paused = 0.0
    began = tsc_seconds(system)
    for _ in range(3):
        check(system.command("pause linux") == "linux: paused\n", "pause")
        start = tsc_seconds(system)
        used = system.vm("linux")["cpu_seconds"]
        system.command("wait 2")
        check(system.vm("linux")["cpu_seconds"] == used, "none of its vCPUs uses any time")
        paused += tsc_seconds(system) - start
        check(system.command("unpause linux") == "linux: unpaused\n", "unpause")
        system.wait_until(lambda: system.vm("linux")["cpu_seconds"] > used, "it goes on")
    system.attach("linux")
    after = float(system.shell("cat /proc/uptime").split()[0])
    system.detach()
    whole = tsc_seconds(system) - began
    system.attach("linux")
    print(f"    paused for {paused:.2f} s of {whole:.2f} s; the guest counted {after - before:.2f} s", flush=True)
    check(after - before <= whole - paused + 0.5, "the guest's clock did not count the pauses")
    check(after > before, "and went on after them")
    system.shell("wait", 600)
    check(system.shell("cat /tmp/paused").rstrip().endswith("smp_load: ok"), "its load ended well")
    system.detach()


def tsc_seconds(system):
    clock = system.json("clock")
    return clock["tsc"] / clock["tsc_hz"]


def drivers():
    """Of the guest's kernel: the power button's, and the one that lets programs see it pressed."""
    modules = os.path.join(support.GUESTS, "linux-image-*-cloud-amd64/lib/modules/*/kernel/drivers")
    return [glob.glob(f"{modules}/{name}.ko")[0] for name in ("acpi/button", "input/evdev")]


def screen_and_keys(system):
    system.attach("linux")
    system.shell("(head -n 1 /dev/tty1 > /tmp/typed) & true")
    system.shell("echo; echo This is its screen > /dev/tty1")
    system.detach()
    check("This is its screen" in system.command("screen linux").split("\n"), "screen shows what the guest wrote to it")
    system.command("send linux --keyboard 'It is typed' Enter")
    system.attach("linux")
    system.shell("while [ ! -s /tmp/typed ]; do sleep 1; done")
    check(system.shell("cat /tmp/typed").strip() == "It is typed", "send types at its keyboard")
    system.detach()


def power_button(system):
    """It is for the guest to decide: without a driver it hears nothing; with one, a program turns it off."""
    check("does not listen" in system.command("shutdown linux"), "no driver, no power button")
    system.attach("linux")
    system.shell("insmod /bin/button.ko; insmod /bin/evdev.ko")
    button = system.shell("grep -l Power /sys/class/input/event*/device/name").split("/")[4]
    system.shell(f"(dd if=/dev/input/{button} of=/tmp/pressed bs=24 count=1 2> /dev/null; poweroff) & true")
    system.shell("while [ ! -e /tmp/pressed ]; do sleep 1; done")  # dd listens: it opens its input first
    system.detach()
    check("asked to shut down" in system.command("shutdown linux"), "with one it is asked")
    system.wait_until(lambda: system.vm("linux")["state"] == "shut down", "and turns itself off")
    check(system.json("info linux")["reason"] == "powered off", "as info says")
    check("VM linux started" in system.command("start linux"), "it starts again")
    comes_up(system)


def triple_faults(system):
    """Linux told to reboot by a triple fault: of a VM with two processors, one at work."""
    system.attach("linux")
    system.shell("while :; do :; done & true")
    system.shell("echo triple > /sys/kernel/reboot/type")
    system.machine.send("reboot -f\r")
    system.expect("VM linux stopped: triple fault", timeout=300)
    system.detach()
    info = system.json("info linux")
    check((info["state"], info["reason"], info["resets"]) == ("shut down", "triple fault", 0),
          "on_reboot = preserve: it stands, and info says why")
    used = info["cpu_seconds"]
    for vcpu in range(2):
        check(int(system.json(f"regs linux {vcpu}")["rip"], 16) > 0, f"vCPU {vcpu} shows its registers")
    check(system.vm("linux")["cpu_seconds"] == used, "it uses no time any more")
    check("on_reboot is now restart" in system.command("set linux on_reboot restart"), "on_reboot can be set then")
    check("VM linux started" in system.command("start linux"), "it starts again")
    comes_up(system)
    system.attach("linux")
    system.shell("echo triple > /sys/kernel/reboot/type")
    system.machine.send("reboot -f\r")
    system.expect("VM linux resets itself", timeout=300)
    system.expect("guest is up: 6[.]1[^,]*, 2 CPU", timeout=900)
    system.detach()
    check(system.json("info linux")["resets"] == 1, "on_reboot = restart: both processors come up again")


def test(machine):
    with tempfile.TemporaryDirectory() as directory:
        made = f"{directory}/made.toml"
        with open(made, "w") as file:
            file.write(MADE)
        modules = [(support.debian_kernel(), "vmlinuz"),
                   (initramfs_with(f"{support.BUILD}/tests/guests/smp_load", *drivers(), directory), "initrd"),
                   (support.guest("heartbeat"), "heartbeat"), (support.guest("echo"), "echo"), (made, "made.toml")]
        with System(machine, modules, CONFIG, memory=512, cpus=4, **support.real_time(machine)) as system:
            system.prompt()
            system.wait_until(lambda: "beat 0000000a" in system.command("scrollback heart 50"), "the heart beats")
            heart = Heart(system, machine)
            heart.collect()
            first = max(heart.beats)
            start_linux(system, machine, "linux")
            for step in (definitions, comes_up, pins, pauses):
                step(system)
                heart.collect()
            system.attach("linux")
            complaints(system, machine)
            system.detach()
            screen_and_keys(system)
            power_button(system)
            triple_faults(system)
            heart.collect()
            heart.judge(first)
            check(system.json("info heart")["resets"] == 0, "the heart never stopped")


if __name__ == "__main__":
    support.main(test)
