"""What the system tests share: machines by name, boot images, and a console at its prompt."""

import json
import os
import re
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

import boot_image  # noqa: E402
import guest_images  # noqa: E402
from machines.bochs import Bochs  # noqa: E402
from machines.machine import PATIENCE, MachineError  # noqa: E402
from machines.qemu import Qemu  # noqa: E402

BUILD = os.environ.get("BULKHEAD_BUILD", os.path.join(ROOT, "build"))
GUESTS = os.path.join(ROOT, "build", "guests")
IMAGE = os.path.join(BUILD, "bulkhead.elf")

PROMPT = "bulkhead> "

# The machines that the suite knows. skylake, tigerlake: VT-x with APIC virtualisation; ryzen, epyc: AMD-V.
MACHINES = {
    "skylake": lambda image, **options: Bochs(image, model="corei7_skylake_x", **options),
    "tigerlake": lambda image, **options: Bochs(image, model="tigerlake", **options),
    "haswell": lambda image, **options: Bochs(image, model="corei7_haswell_4770", **options),
    "penryn": lambda image, **options: Bochs(image, model="core2_penryn_t9600", **options),
    # Faster than the others: this kernel measures the processor's speed by the PIT here, whose accesses are exits.
    "ryzen": lambda image, **options: Bochs(image, model="ryzen", ips=400_000_000, **options),
    "epyc": lambda image, **options: Qemu(image, model="EPYC,+svm,+npt", **options),
    "epyc-no-svm": lambda image, **options: Qemu(image, model="EPYC,-svm", **options),
    "epyc-no-npt": lambda image, **options: Qemu(image, model="EPYC,+svm,-npt", **options),
    "epyc-no-nx": lambda image, **options: Qemu(image, model="EPYC,+svm,+npt,-nx", **options),
    "pentium3": lambda image, **options: Qemu(image, model="pentium3", **options),
    "qemu64": lambda image, **options: Qemu(image, model="qemu64,-svm", **options),
    "epyc-uefi": lambda image, **options: Qemu(image, model="EPYC,+svm,+npt", uefi=True, machine="q35", icount=False, **options),
}


def real_time(machine):
    """Machine options for a test that waits for seconds to pass: QEMU's instruction count would take minutes."""
    return {"icount": False} if machine.startswith("epyc") else {}


def guest(name):
    """The path of a small guest of tests/guests, assembled by the build."""
    return os.path.join(BUILD, "tests", "guests", name + ".bin")


def debian_kernel():
    return guest_images.debian_kernel(GUESTS)


def initramfs():
    return os.path.join(GUESTS, "initrd.gz")


class System:
    """Bulkhead on a machine. modules: list of (file, words); config: text of a bulkhead.toml, or None for none."""

    def __init__(self, machine, modules=(), config=None, options="", protocol="multiboot2", image=None, **machine_options):
        self.directory = tempfile.TemporaryDirectory(prefix="bulkhead-test-")
        self.lines = 0  # typed to the guest's shell
        modules = list(modules)
        if config is not None:
            path = os.path.join(self.directory.name, "bulkhead.toml")
            with open(path, "wb") as file:
                file.write(config if isinstance(config, bytes) else config.encode())
            modules.insert(0, (path, "bulkhead.toml"))
        iso = os.path.join(self.directory.name, "boot.iso")
        boot_image.make_image(iso, boot_image.BootImage(image or IMAGE, options, modules, protocol))
        self.machine = MACHINES[machine](iso, **machine_options)
        self.machine.fatal = rb"All cores are stopped\.\r\n"  # a panic's last line

    def __enter__(self):
        try:
            self.machine.start()
        except BaseException:
            self.directory.cleanup()
            raise
        return self

    def __exit__(self, kind, error, traceback):
        if kind is not None and not issubclass(kind, MachineError):  # whose message has it
            print(self.machine.tail(), flush=True)
        self.machine.stop()
        self.directory.cleanup()

    def expect(self, pattern, timeout=180):
        return self.machine.expect(pattern, timeout)

    def prompt(self, timeout=180):
        """Waits for the console's prompt."""
        self.expect(re.escape(PROMPT), timeout)

    def command(self, line, timeout=120):
        """Types a command at the prompt and returns what it printed."""
        self.machine.send(line + "\r")
        # An announcement in between makes the console draw the line anew, which ends with a control sequence.
        self.machine.expect(r"(?:\x1b\[[0-9;]*[A-Z])*".join(re.escape(each) for each in line + "\r\n"), timeout)
        begin = self.machine.position
        self.prompt(timeout)
        output = plain(self.machine.transcript[begin:self.machine.position])
        return output[:output.rfind(PROMPT)] if PROMPT in output else output

    def json(self, line, timeout=120):
        """What a command prints with --json, parsed. What becomes of VMs may be announced in further lines."""
        return json.loads(self.command(line + " --json", timeout).partition("\n")[0])

    def vm(self, name):
        """What `list` shows of one VM."""
        return next(vm for vm in self.json("list") if vm["name"] == name)

    def wait_until(self, condition, what, timeout=120):
        """Asks again and again until `condition()` is true: for what takes its time without saying when it is done."""
        timeout *= PATIENCE
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not so within {timeout} s: {what}")
        print(f"ok: {what}", flush=True)

    def attach(self, vm, timeout=60):
        self.machine.send(f"console {vm}\r")
        self.expect("attached to " + re.escape(vm), timeout)

    def detach(self):
        self.machine.send("\x1d")
        self.prompt()

    def hears(self, vm, *patterns):
        """Waits for each of these in what a VM sends, now or before."""
        self.attach(vm)
        for pattern in patterns:
            self.expect(pattern)
        self.detach()

    def talks(self, vm="echo", words="hello"):
        """The guest `echo`, in this VM, sends back what is typed to it."""
        self.attach(vm)
        self.expect("echo: ready\r\n")
        self.machine.send(words)
        self.expect(words)
        self.detach()
        print(f"ok: {vm} talks: {words}", flush=True)

    def runs(self, vm):
        """A VM uses processor time."""
        used = self.vm(vm)["cpu_seconds"]
        self.wait_until(lambda: self.vm(vm)["cpu_seconds"] > used, f"{vm} uses processor time")

    def reach_shell(self, cpus=1, timeout=900):
        """Waits for the shell of Debian's kernel, in the attached VM."""
        self.expect(rf"guest is up: 6[.]1[^,]*, {cpus} CPU", timeout)
        self.expect("guest# ")
        self.machine.send("\r")  # what is typed before the shell is ready may be lost
        self.expect("guest# ")

    def shell(self, line, timeout=300):
        """Runs a line in the attached guest's shell and returns its output. Each line is marked with a number of its
        own: what an attachment replays of earlier ones is not taken for its output."""
        self.lines += 1
        self.machine.send(f"{line}; echo E\"ND\"{self.lines}.$?\r")
        self.expect(rf"E\"ND\"{self.lines}\.\$\?\r?\n", timeout)
        begin = self.machine.position
        match = self.expect(rf"END{self.lines}\.\d+\r?\n", timeout)
        output = plain(self.machine.transcript[begin:match.start()])
        self.expect("guest# ", timeout)
        return output


def plain(output):
    """Terminal output as text: without control sequences and carriage returns."""
    return re.sub(r"\x1b\[[0-9;?!]*[A-Za-z]", "", bytes(output).decode(errors="replace")).replace("\r", "")


def screen_text(machine):
    """What the text-mode screen of a QEMU machine shows."""
    path = machine.path("text")
    machine.command("pmemsave", val=0xB8000, size=4000, filename=path)
    with open(path, "rb") as file:
        return file.read()[::2].decode("latin-1")


def skip(why):
    """Ends the test as skipped."""
    print(f"skipped: {why}", flush=True)
    sys.exit(77)


def check(condition, message):
    """An assertion that counts: prints what was shown, or fails the test."""
    if not condition:
        raise AssertionError(message)
    print(f"ok: {message}", flush=True)


def main(test):
    """Runs test(*arguments); prints the transcript's end and exits 1 when it fails."""
    try:
        test(*sys.argv[1:])
    except (MachineError, AssertionError) as error:
        print(f"FAILED: {error}", flush=True)
        sys.exit(1)
    print("passed", flush=True)
