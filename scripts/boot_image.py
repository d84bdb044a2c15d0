"""A GRUB image (BIOS and UEFI) that boots Bulkhead, or a Linux bare for comparison."""

import os
import shutil
import subprocess
import tempfile


class BootImage:
    """What goes on the image. modules: list of (file, words after the file's name in the GRUB entry)."""

    def __init__(self, hypervisor, options="", modules=(), protocol="multiboot2"):
        self.hypervisor = hypervisor
        self.options = options
        self.modules = list(modules)
        self.protocol = protocol

    def entry(self, root):
        module = "module2" if self.protocol == "multiboot2" else "module"
        shutil.copy(self.hypervisor, os.path.join(root, "boot/bulkhead.elf"))
        lines = [f"{self.protocol} /boot/bulkhead.elf {self.options}"]
        for index, (file, words) in enumerate(self.modules):
            name = f"m{index}-{os.path.basename(file)}"
            shutil.copy(file, os.path.join(root, "boot", name))
            lines.append(f"{module} /boot/{name} {quoted(words)}")
        return lines


class LinuxImage:
    """A Linux booted by GRUB itself: what a bare machine looks like to the guest."""

    def __init__(self, kernel, initrd, cmdline):
        self.kernel, self.initrd, self.cmdline = kernel, initrd, cmdline

    def entry(self, root):
        shutil.copy(self.kernel, os.path.join(root, "boot/vmlinuz"))
        shutil.copy(self.initrd, os.path.join(root, "boot/initrd"))
        return [f"linux /boot/vmlinuz {self.cmdline}", "initrd /boot/initrd"]


def quoted(words):
    """`words` so that GRUB's shell passes them on unchanged."""
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words.split(" ") if word)


def make_image(path, contents):
    with tempfile.TemporaryDirectory() as root:
        os.makedirs(os.path.join(root, "boot/grub"))
        lines = contents.entry(root)
        with open(os.path.join(root, "boot/grub/grub.cfg"), "w") as file:
            file.write("set timeout=0\nset default=0\n"
                       "if [ \"$grub_platform\" = efi ]; then insmod all_video; fi\n"
                       "menuentry bulkhead {\n    " + "\n    ".join(lines) +
                       # After the kernel is named, since that sets the mode it would like: a BIOS machine stays in text.
                       "\n    if [ \"$grub_platform\" = pc ]; then set gfxpayload=text; fi\n    boot\n}\n")
        result = subprocess.run(["grub-mkrescue", "-o", path + ".new", root], capture_output=True,
                                text=True)
        if result.returncode != 0:
            raise SystemExit(f"grub-mkrescue failed:\n{result.stderr}")
        os.rename(path + ".new", path)
    return path
