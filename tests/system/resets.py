#!/usr/bin/env python3
"""A guest that resets itself over and over again, on a machine of one core: nothing grows by it.
usage: resets.py MACHINE linux|triple COUNT
linux: Debian's kernel boots to user space, whose only process has it reset the machine. triple: a small guest that
triple-faults at once. Now and then the hypervisor's checksums, its free pages and units, and where the VM's memory lies
are compared with what they were after the first start; the log, which is a ring, does not grow beyond its size."""

import os
import subprocess
import tempfile
import time

import support
from support import System, check

CONFIG = """\
[vm.guest]
kernel = "kernel"
{more}
autostart = false
on_reboot = "restart"
"""
LINUX = """\
initrd = "initrd"
cmdline = "console=ttyS0 quiet nokaslr reboot=k tsc=reliable"
memory.max = "128M"
"""
TRIPLE = """\
memory.max = "2M"
"""
LOG_BYTES = 256 << 10  # more than the ring has
# Bochs's machine of 10 million instructions a second: its time, which a reset has to wait for, passes the faster.
MACHINE = {"epyc": {"extra": ["-icount", "sleep=off"]}}
PATIENCE = 600  # seconds without a reset


def initramfs(program, directory):
    """An archive with nothing but /init."""
    os.makedirs(os.path.join(directory, "root"))
    os.link(program, os.path.join(directory, "root", "init"))
    path = os.path.join(directory, "initrd")
    with open(path, "wb") as file:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=os.path.join(directory, "root"),
                       input=b"init\n", check=True, stdout=file)
    return path


def counts(system):
    """All that must not grow."""
    vms = [{key: vm[key] for key in vm if key in ("vm", "name", "ranges")} for vm in system.json("mem")["vms"]]
    return {"integrity": system.json("integrity"), "free": system.json("mem")["free_bytes"], "vms": vms}


def test(machine, kind, count):
    count = int(count)
    with tempfile.TemporaryDirectory(dir=support.BUILD) as directory:
        if kind == "linux":
            modules = [(support.debian_kernel(), "kernel"),
                       (initramfs(support.guest("reset_init").removesuffix(".bin"), directory), "initrd")]
        else:
            modules = [(support.guest("triple_fault"), "kernel")]
        config = CONFIG.format(more=LINUX if kind == "linux" else TRIPLE)
        with System(machine, modules, config, memory=256, **MACHINE.get(machine, {})) as system:
            system.prompt()
            off = counts(system)
            system.command("start guest")
            on = counts(system)
            begin = moved = shown = time.monotonic()
            done, reached = 0, 0
            while done < count:
                system.machine.pump(2 if done else 0.5)
                info = system.json("info guest")
                now = time.monotonic()
                if info["state"] not in ("running", "blocked"):
                    raise AssertionError(f"after {done} resets: {info}")
                if info["resets"] != done:
                    done, moved = info["resets"], now
                elif now - moved > PATIENCE:
                    raise AssertionError(f"no reset for {PATIENCE} s after {done}:\n{system.command('scrollback guest')}")
                if (is_now := counts(system)) != on:
                    raise AssertionError(f"after {done} resets: {is_now}\nbefore: {on}")
                if now - shown > 60:
                    shown = now
                    print(f"{now - begin:.0f} s: {done} resets", flush=True)
            text = system.command("scrollback guest 1000")
            reached = text.count("user space: about to reset" if kind == "linux" else "triple fault: about to")
            seconds = time.monotonic() - begin
            check(reached > 0 and "survived" not in text and "panic" not in text,
                  f"{done} resets in {seconds:.0f} s; each began anew: the console has {reached} of them")
            check(len(system.command("dmesg")) < LOG_BYTES, "the log did not grow")
            check(counts(system) == on, "checksums, free pages and memory are as after the first start")
            system.command("destroy guest")
            check(counts(system) == off, "and without it as before the first")


if __name__ == "__main__":
    support.main(test)
