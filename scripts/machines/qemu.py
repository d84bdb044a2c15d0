"""QEMU: TCG emulates AMD-V with nested paging on any processor; KVM nests the real thing where it is offered."""

import json
import os
import subprocess

from .machine import Machine


def nested_kvm():
    """'vmx' or 'svm' where /dev/kvm nests that extension, else None. The file alone proves nothing."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return None
    with open("/proc/cpuinfo") as file:
        flags = next((line.split() for line in file if line.startswith("flags")), [])
    for flag, module in (("vmx", "kvm_intel"), ("svm", "kvm_amd")):
        parameter = f"/sys/module/{module}/parameters/nested"
        if flag in flags and os.path.exists(parameter):
            with open(parameter) as file:
                if file.read().strip() in ("1", "Y"):
                    return flag
    return None


class Qemu(Machine):
    name = "qemu"

    def __init__(self, image, memory=1024, cpus=1, model=None, kvm=False, machine="pc", uefi=False, icount=True,
                 single=False, extra=(), com2=False):
        """single: one thread of the host's for all processors, though time is the host's. com2: a second serial port,
        whose output goes to the file path("com2")."""
        super().__init__(image, memory, cpus, model)
        self.com2 = com2
        self.kvm = kvm
        self.machine = machine
        self.uefi = uefi
        self.icount = icount
        self.single = single
        self.extra = list(extra)
        self.monitor = None

    def launch(self):
        serial = self.path("serial")
        monitor = self.path("monitor")
        model = self.model or ("host" if self.kvm else "EPYC,+svm,+npt")
        accelerator = "kvm" if self.kvm else "tcg,thread=single" if self.icount or self.single else "tcg"
        command = ["qemu-system-x86_64", "-accel", accelerator, "-cpu", model, "-machine", self.machine,
                   "-smp", str(self.cpus), "-m", str(self.memory), "-cdrom", self.image, "-boot", "d",
                   "-display", "none", "-vga", "std", "-no-reboot", "-nic", "none",
                   "-serial", f"unix:{serial},server=on,wait=on",
                   *(["-serial", "file:" + self.path("com2")] if self.com2 else []),
                   "-qmp", f"unix:{monitor},server=on,wait=off"]
        if self.icount and not self.kvm:
            # Time counts instructions, the real-time clock's too: a busy host cannot make clocks disagree.
            command += ["-icount", "shift=0", "-rtc", "base=utc,clock=vm"]
        if self.uefi:
            command += ["-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd"]
        self.log = open(self.path("log"), "wb")
        self.spawn(command + self.extra, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        return self.connect(serial)

    def stop(self):
        if self.monitor:
            self.monitor.close()
            self.monitor = None
        super().stop()
        if getattr(self, "log", None):
            self.log.close()

    def command(self, name, **arguments):
        """Runs a QMP command and returns its result."""
        if not self.monitor:
            self.monitor = self.connect(self.path("monitor"))
            self.monitor_lines = self.monitor.makefile("r")
            self.monitor_lines.readline()  # the greeting
            self.command("qmp_capabilities")
        self.monitor.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self.monitor_lines.readline())
            if "error" in answer:
                raise RuntimeError(f"QMP {name}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def screendump(self, path):
        """Writes what the display shows as a PPM picture."""
        self.command("screendump", filename=path)

    def diagnostics(self):
        try:
            with open(self.path("log"), errors="replace") as file:
                return file.read()[-2000:]
        except (OSError, AttributeError):
            return ""
