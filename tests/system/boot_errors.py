#!/usr/bin/env python3
"""What is wrong with the boot files, the options or the machine is named, with what to do; all else goes on.
usage: boot_errors.py MACHINE"""

import os
import re
import struct
import tempfile

import support
from support import System, check

CONFIG = """\
[host]
escape = "ctrl-["

[vm.echo]
kernel = "echo"
memory.max = "8M"

[vm.misspelt]
kernel = "echo"
memori.max = "8M"

[vm.kinds]
kernel = 7
vcpus = "two"
autostart = maybe

[vm.no-kernel]
memory.max = "8M"

[vm.lost]
memory.max = "8M"
kernel = "nosuch"

[vm.lost-initrd]
memory.max = "8M"
kernel = "echo"
initrd = "nosuch"

[vm.big]
kernel = "echo"
memory.max = "4G"

[vm.short-header]
memory.max = "8M"
kernel = "short-header"

[vm.short]
kernel = "short"
memory.max = "32M"

[vm.old]
memory.max = "8M"
kernel = "old"

[vm.elf]
memory.max = "8M"
kernel = "elf"

[vm.text]
memory.max = "8M"
kernel = "text"

[vm.empty]
memory.max = "8M"
kernel = "empty"

[vm.last]
kernel = "echo"
memory.max = "8M"
"""

# In this order, so that each is found behind the one before.
CONFIG_COMPLAINTS = (
    r'bulkhead\.toml:15:13: maybe is not a value; put text in "quotes"',
    r'bulkhead\.toml:2:10: escape: "ctrl-\[" is a key that guests need \(Escape, Enter, Tab or Backspace\); use "ctrl-\]"',
    r'bulkhead\.toml:10:1: unknown key "memori\.max"; did you mean memory\.max\?',
    r'bulkhead\.toml:13:10: kernel is an integer; write a string such as "vmlinuz"',
    r'bulkhead\.toml:14:9: vcpus is a string; write an integer such as 2',
    r'bulkhead\.toml:17:\d+: VM "no-kernel" has no kernel; add kernel = "NAME OF A MODULE"',
    r"bulkhead\.toml: \d problem\(s\); the VMs concerned are refused",
    r'VM lost: kernel "nosuch" is not among the boot modules; add it to the GRUB entry',
    r'VM lost-initrd: initrd "nosuch" is not among the boot modules; add it to the GRUB entry',
    r"VM big: it needs 4\d\d\d MiB \(4096 MiB and overhead\), the machine has \d+ MiB for VMs; lower memory.max",
    r"VM short-header: bzImage setup header cut off: the file has 560 bytes; copy it anew",
    r"VM short: bzImage cut off: 65536 bytes, but setup_sects and syssize tell of \d+; copy it anew",
    r"VM old: bzImage boot protocol is 2\.5 \(version\); 2\.06 \(Linux 2\.6\.22\) is the oldest supported",
    r"VM elf: ELF e_machine is 183, not 3 \(i386\) or 62 \(x86-64\); the kernel is for another processor",
    r"VM text: not a bzImage, Multiboot or PVH kernel; if it is a firmware ROM, say so in the config",
    r"VM empty: the kernel's file is empty; name a kernel",
)


def broken_kernels(directory):
    """Debian's kernel cut off and altered, and files that are no kernel: (file, name) of each."""
    with open(support.debian_kernel(), "rb") as file:
        kernel = file.read(65536)
    old = bytearray(kernel)
    struct.pack_into("<H", old, 0x206, 0x205)
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 183, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    contents = {"short-header": kernel[:560], "short": kernel, "old": old, "elf": elf + bytes(56),
                "text": b"This is not a kernel.\n" * 50, "empty": b""}
    for name, content in contents.items():
        path = os.path.join(directory, name)
        with open(path, "wb") as file:
            file.write(content)
        yield path, name


def wrong_files_and_options(machine):
    with tempfile.TemporaryDirectory() as directory:
        modules = [(support.guest("echo"), "echo"), *broken_kernels(directory)]
        with System(machine, modules, CONFIG, options="consol=com1 baud=7 loglevel=info", memory=256, **support.real_time(machine)) as system:
            system.prompt()
            log = system.command("dmesg")
            check(re.search(r'warning: HV-E131: unknown host option "consol=com1"; known are console baud', log),
                  "an unknown host option is named")
            check(re.search(r"warning: HV-E132: host option baud=7: .*; using the default", log), "and a bad value")
            position = 0
            for complaint in CONFIG_COMPLAINTS:
                match = re.compile(r"error: " + complaint + "$", re.MULTILINE).search(log, position)
                check(match, match[0] if match else "the log says: " + complaint)
                position = match.end()
            states = {vm["name"]: vm["state"] for vm in system.json("list")}
            check([name for name, state in states.items() if state == "refused"] ==
                  ["misspelt", "kinds", "no-kernel", "lost", "lost-initrd", "big"],
                  "what is wrong in the config, or does not fit the machine, is refused")
            check([name for name, state in states.items() if state == "running"] == ["echo", "last"],
                  "what is right runs, before and behind it")
            check("is refused" in system.command("start kinds"), "a refused VM cannot be started")
            check("nosuch" in system.command("start lost"), "start names the missing module again")
            check("nosuch" in system.json("info lost")["reason"], "and so does info")
            free = system.json("mem")["free_bytes"]
            for name in ("short", "old", "elf", "text", "big"):
                system.command(f"start {name}")
            check(system.json("mem")["free_bytes"] == free, "failed starts leave no memory behind")
            system.talks("echo")
            system.talks("last")


def broken_config(machine):
    with System(machine, [(support.guest("echo"), "echo")], b"\x7fELF\x00\xff\xfe[vm.echo\nkernel = \"echo\n", memory=128) as system:
        system.prompt()
        log = system.command("dmesg")
        check(re.search(r"error: bulkhead\.toml:1:1: ", log), "a config that is no text: its first character is named")
        check(all(vm["state"] == "refused" for vm in system.json("list")), "no VM is made of it")


def no_config(machine):
    modules = [(support.guest("echo"), "first one two"), (support.guest("halt"), "second"), (support.guest("echo"), "first")]
    with System(machine, modules, None, memory=1024, **support.real_time(machine)) as system:
        system.prompt()
        check("no config module (bulkhead.toml): each kernel among the modules becomes a VM" in system.command("dmesg"),
              "without a config the log says what happens")
        check([vm["name"] for vm in system.json("list")] == ["first", "second", "first-2"], "each kernel is a VM")
        check(system.json("info first")["cmdline"] == "one two", "with the words behind its name as command line")
        system.talks("first")
        system.talks("first-2")


def too_little_memory(machine):
    with System(machine, [(support.guest("echo"), "echo")], "[vm.echo]\nkernel = \"echo\"\n", memory=16) as system:
        system.expect(r"error: HV-E004: too little RAM: \d+ MiB are free for VMs, at least 16 MiB are needed; add memory or use "
                      r"fewer or smaller modules\r\n")
        system.expect(r"Bulkhead \S+ is halted\.\r\n")
        print("ok: too little RAM is said in figures", flush=True)


def no_serial_port(machine):
    """A console port that is not there: no line to talk on, and the VMs run all the same, as the screen's last lines tell.
    On QEMU alone: nothing tells what Bochs has on its screen while it runs."""
    with System(machine, [(support.guest("echo"), "echo")], "[vm.echo]\nkernel = \"echo\"\nmemory.max = \"8M\"\n",
                options="console=com2", memory=128) as system:
        def shows(text):
            system.machine.pump(0.5)
            return text in support.screen_text(system.machine)

        system.wait_until(lambda: shows("VM echo started"), "the boot goes on and the VM starts")
        system.wait_until(lambda: shows("HV-E006: no working UART at COM2"), "and why no prompt comes is said at the end")
        check("Bulkhead" not in system.machine.text(), "nothing is written to another port")


def test(machine):
    wrong_files_and_options(machine)
    broken_config(machine)
    no_config(machine)
    too_little_memory(machine)
    if machine == "epyc":
        no_serial_port(machine)


if __name__ == "__main__":
    support.main(test)
