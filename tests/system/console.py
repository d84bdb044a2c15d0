#!/usr/bin/env python3
"""The management console, with one small guest that echoes its serial port: every command in plain text and as JSON,
attaching with replay, the line editor, the life of a VM from start to destroy, and the end of the machine.
usage: console.py MACHINE"""

import re

import support
from support import PROMPT, System, check

CONFIG = """\
[vm.echo]
kernel = "echo"
cmdline = "with \\"words\\""
memory.max = "16M"
"""

ESCAPE = "\x1d"


def lists_and_json(system):
    check(re.search(r"^NAME +ID +MEMORY VCPUS STATE +TIME\necho +0 +16M +1 r----- running +\d+\.\d$",
                    system.command("list"), re.MULTILINE), "list shows the VM as running")
    [vm] = system.json("list")
    check((vm["id"], vm["name"], vm["state"], vm["vcpus"], vm["memory_bytes"]) == (0, "echo", "running", 1, 16 << 20),
          "list --json says the same")

    info = system.command("info echo")
    check(all(re.search(pattern, info, re.MULTILINE) for pattern in (
        r"^name +echo$", r"^state +running \(r-----\)$", r"^memory +16M$", r"^resets +0$", r"^kernel +echo$",
        r'^cmdline +with "words"$', r"^on_reboot +restart$", r"^on_crash +preserve$")), "info shows state and configuration")
    details = system.json("info 0")
    check(details["name"] == "echo" and details["cmdline"] == 'with "words"' and details["autostart"] is True,
          "info takes an id, and its JSON keeps quotes")

    exits = system.command("exits echo")
    check(re.search(r"^port I/O +\d+ +\d+\.\d +\d+$", exits, re.MULTILINE), "exits counts port I/O")
    counted = system.json("exits echo")
    ports = next(each for each in counted["exits"] if each["reason"] == "port I/O")
    check(counted["total"] == sum(each["count"] for each in counted["exits"]) and ports["count"] > 0,
          "exits --json adds up")

    log = system.command("dmesg")
    check("Bulkhead" in log.splitlines()[0] and "VM echo started" in log, "dmesg shows the log from the banner on")
    entries = system.json("dmesg")
    seconds = [entry["seconds"] for entry in entries]
    check(any(entry["text"] == "VM echo started" for entry in entries) and seconds == sorted(seconds),
          "dmesg --json has the same entries in order")
    check(re.search(r"^Bulkhead \S+, (VT-x|AMD-V), 1 cores, \d+M of memory$", system.command("version"), re.MULTILINE),
          "version names backend, cores and memory")
    check(system.json("version")["cpus"] == 1, "version --json says the same")


def help_and_errors(system):
    commands = re.findall(r"^  ([\w-]+) +\S", system.command("help"), re.MULTILINE)
    check({"list", "info", "console", "start", "pause", "unpause", "reset", "shutdown", "destroy", "exits", "help",
           "dmesg", "version", "reboot", "poweroff"} <= set(commands), "help lists the commands")
    for command in commands:
        text = system.command(f"help {command}")
        if not (text.startswith(f"usage: {command}") and f"\nexample: {command}" in text):
            raise AssertionError(f"help {command} shows no usage or example")
    print(f"ok: each of {len(commands)} commands has a usage line and an example", flush=True)

    check(system.command("lsit") == 'unknown command "lsit"; did you mean list?\n', "a misspelt command gets a suggestion")
    check("did you mean list?" in system.json("lsit")["error"], "as JSON where JSON was wanted")
    check("did you mean echo?" in system.command("info ecko"), "a misspelt VM gets a suggestion")
    check("usage: info VM" in system.command("info"), "a missing argument shows the usage")
    check("usage: list" in system.command("list --jsno"), "so does an unknown option")
    check("unexpected argument" in system.command("version now"), "and an argument too many")
    check(system.command("") == "", "an empty line does nothing")


def line_editor(system):
    def typed(keys, pattern):
        system.machine.send(keys)
        system.expect(pattern)

    def cancel():
        system.machine.send("\x03")
        system.prompt()

    typed("ver\t", "ver")
    typed("\r", r"sion \r?\nBulkhead ")
    system.prompt()
    typed("info e\t", r"info echo ")
    cancel()
    print("ok: Tab completes commands and VMs", flush=True)
    typed("reb\x7f\t\t", r"\r\n[^\r\n]*reset +[^\r\n]*reboot")
    system.prompt()
    cancel()
    print("ok: Tab twice lists what is possible", flush=True)

    system.command("help version")
    typed("\x1b[A", "help version")
    typed("\r", r"usage: version")
    system.prompt()
    typed("\x1b[A\x1b[A\x1b[B", "help version")
    cancel()
    # Editing: Home, a letter in front, End, Backspace.
    typed("istx\x01l\x05\x7f\r", r"NAME +ID")
    system.prompt()
    print("ok: history and editing keys", flush=True)
    # A report in the terminal's name, as a guest could provoke it, types nothing.
    typed("\x1bP1$r0m\rreboot\r\x1b\\vers\x03", re.escape(PROMPT))
    check("version" in system.command("help version"), "a control string from the terminal is no command")


def attach_and_detach(system):
    system.attach("echo")
    system.expect("echo: ready\r\n")
    system.machine.send("first words")
    system.expect("first words")
    system.machine.send(ESCAPE)
    system.expect("left the console of echo")
    check(b"\x1b[!p" in system.machine.transcript, "leaving resets the terminal")
    system.prompt()
    system.attach("echo")
    system.expect("echo: ready\r\nfirst words")
    print("ok: attaching again replays what was sent", flush=True)
    system.machine.send("list\r")
    system.expect("list\r")
    check(not system.machine.transcript.endswith(PROMPT.encode()), "a guest's line is no command")
    system.detach()


def life_of_a_vm(system):
    check(system.command("pause echo") == "echo: paused\n", "pause")
    check(system.vm("echo")["state"] == "paused", "list shows it as paused")
    used = system.vm("echo")["cpu_seconds"]
    uptime = system.json("info echo")["uptime_seconds"]
    check(system.vm("echo")["cpu_seconds"] == used, "a paused VM uses no processor time")
    check(system.json("info echo")["uptime_seconds"] == uptime, "and its clock stands still")
    check("not running" in system.command("pause echo"), "it cannot be paused twice")
    check(system.command("unpause echo") == "echo: unpaused\n", "unpause")
    system.wait_until(lambda: system.vm("echo")["cpu_seconds"] > used, "it goes on")

    check("does not listen" in system.command("shutdown echo"), "a guest without ACPI does not hear the power button")
    check("VM echo was reset" in system.command("reset echo"), "reset")
    check(system.json("info echo")["resets"] == 1, "resets are counted")
    system.attach("echo")
    # The replay begins with what it said before the reset.
    system.expect("first words(.|\n)*echo: ready\r\n")
    system.machine.send("after reset")
    system.expect("after reset")
    system.detach()

    check("was destroyed" in system.command("destroy echo"), "destroy")
    check(system.vm("echo")["state"] == "off", "destroyed, it is off")
    check("no console" in system.command("console echo"), "and has no console")
    check("is off" in system.command("reset echo"), "cannot be reset")
    check("is off" in system.command("destroy echo"), "nor destroyed again")
    check("VM echo started" in system.command("start echo"), "start")
    check("already" in system.command("start echo"), "it cannot be started twice")
    for _ in range(20):
        system.command("destroy echo")
        system.command("start echo")
    check(system.vm("echo")["state"] == "running", "twenty times destroyed and started: no memory is lost")

    system.attach("echo")
    system.expect("echo: ready\r\n")
    system.machine.send("Q")
    system.expect("echo: powering off\r\n")
    system.expect("VM echo stopped")
    system.detach()
    check(re.search(r"^echo .* ---s-- ", system.command("list"), re.MULTILINE), "turned off by ACPI, it is shut down")
    check("echo: survived it" not in system.machine.text(), "not one instruction later")
    check(system.json("info echo")["reason"] != "", "info says why it stopped")
    check("VM echo started" in system.command("start echo"), "it starts again")


def end_of_the_machine(system, machine):
    system.machine.send("reboot\r")
    if system.machine.name == "bochs":
        system.expect("Bulkhead \\S+\r\n")
        system.prompt()
        print("ok: reboot boots again", flush=True)
        system.machine.send("poweroff\r")
        # Bochs takes power-off for a panic of its own; it is an end all the same.
        system.machine.wait_end()
    else:
        check(system.machine.wait_end() == 0, "reboot ends an emulator that is told not to boot again")
        with System(machine, [(support.guest("echo"), "echo")], CONFIG, memory=128) as again:
            again.prompt()
            again.machine.send("poweroff\r")
            check(again.machine.wait_end() == 0, "the emulator exits by itself")
    print("ok: poweroff", flush=True)


def test(machine):
    with System(machine, [(support.guest("echo"), "echo")], CONFIG, memory=128) as system:
        system.prompt()
        lists_and_json(system)
        help_and_errors(system)
        line_editor(system)
        attach_and_detach(system)
        life_of_a_vm(system)
        end_of_the_machine(system, machine)


if __name__ == "__main__":
    support.main(test)
