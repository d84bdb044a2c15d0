#!/usr/bin/env python3
"""Builds Bulkhead, puts it on a GRUB image with its guests, and boots that."""

import argparse
import os
import select
import subprocess
import sys
import termios
import tty

import boot_image
import guest_images
import script_player
from machines.bochs import Bochs
from machines.machine import MachineError
from machines.qemu import Qemu, nested_kvm

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

CONFIG = """\
[vm.linux]
kernel     = "vmlinuz"
initrd     = "initrd"
cmdline    = "{cmdline}"
memory.max = "{memory}"
"""


def build(build_type, quiet=False):
    """Builds the image and returns its path."""
    directory = os.path.join(ROOT, "build" if build_type == "Release" else "build-debug")
    output = subprocess.DEVNULL if quiet else sys.stderr
    if not os.path.exists(os.path.join(directory, "build.ninja")):
        # Tests want more packages than a boot does; scripts/test turns them on.
        subprocess.run(["cmake", "-G", "Ninja", "-S", ROOT, "-B", directory, f"-DCMAKE_BUILD_TYPE={build_type}",
                        "-DBULKHEAD_TESTS=OFF"], check=True, stdout=output)
    subprocess.run(["ninja", "-C", directory, "bulkhead.elf"], check=True, stdout=output)
    return os.path.join(directory, "bulkhead.elf")


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The terminal becomes the machine's COM1: type `help` at the prompt, `console linux` for the guest's\n"
               "shell, Ctrl-] to leave it, `poweroff` to end. Ctrl-A X ends the emulator at any time.\n\n" +
               script_player.HELP)
    guest = parser.add_argument_group("the guest")
    guest.add_argument("--kernel", metavar="FILE", help="guest kernel (default: Debian's linux-image-cloud-amd64)")
    guest.add_argument("--initrd", metavar="FILE", help="guest initrd (default: a BusyBox initramfs; 'none': no initrd)")
    guest.add_argument("--cmdline", metavar="TEXT", default="console=ttyS0", help="guest command line (default: %(default)s)")
    guest.add_argument("--memory", metavar="SIZE", default="512M", help="guest memory (default: %(default)s)")
    guest.add_argument("--config", metavar="FILE", help="a bulkhead.toml of your own in place of the options above")
    guest.add_argument("--module", metavar="FILE[=NAME]", action="append", default=[],
                       help="a further module, under NAME (default: the file's name)")
    guest.add_argument("--no-config", action="store_true", help="no config module: the kernel boots with defaults")
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--emulator", choices=("auto", "bochs", "qemu", "kvm"), default="auto",
                         help="auto: QEMU with KVM where it nests VT-x or AMD-V, else Bochs (VT-x); qemu: TCG (AMD-V)")
    machine.add_argument("--svm", action="store_true", help="AMD-V in QEMU TCG: the same as --emulator qemu")
    machine.add_argument("--model", help="CPU model (Bochs: corei7_skylake_x, tigerlake, ryzen, ...; QEMU: as -cpu)")
    machine.add_argument("--machine-memory", metavar="MIB", type=int, default=1024, help="machine memory (default: %(default)s)")
    machine.add_argument("--cpus", type=int, default=1, help="processors of the machine (default: %(default)s)")
    machine.add_argument("--uefi", action="store_true", help="boot by UEFI (QEMU only)")
    machine.add_argument("--multiboot1", action="store_true", help="load by Multiboot 1 instead of 2")
    machine.add_argument("--options", metavar="TEXT", default="", help="options on the hypervisor's own command line")
    machine.add_argument("--debug", action="store_true", help="the debug build")
    machine.add_argument("--bare", action="store_true", help="boot the guest without Bulkhead, to compare")
    how = parser.add_argument_group("how to drive it")
    how.add_argument("--headless", action="store_true", help="print COM1, type nothing; ends with the machine")
    how.add_argument("--script", metavar="FILE", help="play FILE (- for standard input) instead of a person; "
                     "prints the transcript, exits 1 on a mismatch or time-out")
    how.add_argument("--image-only", metavar="FILE", help="write the bootable ISO image to FILE and stop")
    how.add_argument("--quiet", action="store_true", help="no build output")
    return parser.parse_args()


def contents(options):
    """What goes on the boot image."""
    guests = os.path.join(ROOT, "build", "guests")
    os.makedirs(guests, exist_ok=True)
    kernel = options.kernel or (None if options.config else guest_images.debian_kernel(guests))
    initrd = None if options.initrd == "none" else options.initrd
    if not initrd and options.initrd != "none" and not options.config:
        initrd = guest_images.busybox_initramfs(os.path.join(guests, "initrd.gz"))
    if options.bare:
        return boot_image.LinuxImage(kernel, initrd, options.cmdline)
    modules = []
    if options.config:
        modules.append((options.config, "bulkhead.toml"))
    elif not options.no_config:
        text = CONFIG.format(cmdline=options.cmdline.replace("\\", "\\\\").replace('"', '\\"'), memory=options.memory)
        if not initrd:
            text = text.replace('initrd     = "initrd"\n', "")
        path = os.path.join(guests, f"run-{os.getpid()}.toml")
        with open(path, "w") as file:
            file.write(text)
        modules.append((path, "bulkhead.toml"))
    if kernel:
        modules.append((kernel, f"vmlinuz {options.cmdline}" if options.no_config else "vmlinuz"))
    if initrd:
        modules.append((initrd, "initrd"))
    for module in options.module:
        file, _, name = module.partition("=")
        modules.append((file, name or os.path.basename(file)))
    return boot_image.BootImage(build("Debug" if options.debug else "Release", options.quiet), options.options, modules,
                                "multiboot" if options.multiboot1 else "multiboot2")


def make_machine(options, image):
    emulator = "qemu" if options.svm else options.emulator
    if emulator == "auto":
        emulator = "kvm" if nested_kvm() else "qemu" if options.uefi else "bochs"
    common = {"memory": options.machine_memory, "cpus": options.cpus, "model": options.model}
    if emulator == "bochs":
        if options.uefi:
            raise SystemExit("Bochs has no UEFI; use --emulator qemu")
        return Bochs(image, lenient_msrs=options.bare, **common)
    # OVMF waits in real time: counting instructions would make it crawl.
    return Qemu(image, kvm=emulator == "kvm", uefi=options.uefi, icount=not options.uefi, machine="q35" if options.uefi else "pc", **common)


def interact(machine):
    """Joins the terminal and COM1 until the machine ends or Ctrl-A X is typed."""
    standard_input = sys.stdin.fileno()
    saved = termios.tcgetattr(standard_input) if os.isatty(standard_input) else None
    machine.echo = sys.stdout.buffer
    try:
        if saved:
            tty.setraw(standard_input)
        sources = [standard_input, machine.serial]
        prefix = False
        while True:
            ready, _, _ = select.select(sources, [], [], 1.0)
            if machine.serial in ready and not machine.pump(0):
                return
            if machine.process.poll() is not None:
                while machine.pump(0.1):
                    pass
                return
            if standard_input in ready:
                data = os.read(standard_input, 1024)
                if not data:
                    sources.remove(standard_input)
                    continue
                typed = bytearray()
                for byte in data:
                    if prefix and byte in b"xX":
                        return
                    prefix = byte == 1 and not prefix
                    if not prefix:
                        typed.append(byte)
                machine.send(bytes(typed))
    finally:
        if saved:
            termios.tcsetattr(standard_input, termios.TCSADRAIN, saved)
        print()


def main():
    options = arguments()
    steps = None
    if options.script:
        name = "standard input" if options.script == "-" else options.script
        try:
            with (sys.stdin if options.script == "-" else open(options.script)) as file:
                steps = script_player.parse(file.read(), name)
        except (OSError, script_player.ScriptError) as error:
            print(f"scripts/run: {error}", file=sys.stderr)
            return 2
    image = boot_image.make_image(options.image_only or os.path.join(ROOT, "build", "guests", f"run-{os.getpid()}.iso"),
                                  contents(options))
    if options.image_only:
        print(f"wrote {image}")
        return 0
    machine = make_machine(options, image)
    print(f"booting in {machine.name}; Ctrl-A X ends it", file=sys.stderr)
    try:
        with machine:
            if steps is not None:
                machine.echo = sys.stdout.buffer
                script_player.play(machine, steps)
            elif options.headless:
                machine.echo = sys.stdout.buffer
                while machine.pump(1.0):
                    pass
            else:
                interact(machine)
    except MachineError as error:
        print(f"\nscripts/run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        os.unlink(image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
