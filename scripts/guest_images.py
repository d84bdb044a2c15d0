"""Guests: Debian's kernel, unmodified, by apt, and an initramfs of BusyBox."""

import glob
import os
import shutil
import subprocess
import tempfile

INITTAB = """\
::sysinit:/etc/rc
ttyS0::respawn:-/bin/sh
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/umount -a -r
"""

RC = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
hostname guest
echo 1 > /proc/sys/kernel/printk
echo "guest is up: $(uname -r), $(nproc) CPU(s), $(awk '/MemTotal/ {print $2}' /proc/meminfo) KiB"
[ -f /etc/rc.local ] && . /etc/rc.local
"""

PROFILE = """\
export PS1='guest# ' PATH=/bin:/sbin TERM=vt100
"""


def run(*command, **options):
    subprocess.run(command, check=True, **options)


def debian_package(name, directory):
    """Downloads a Debian package by apt and unpacks it below `directory`; returns the folder. Done once."""
    folder = os.path.join(directory, name)
    if os.path.isdir(folder):
        return folder
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        os.chmod(scratch, 0o755)
        for attempt in (1, 2):
            result = subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name], cwd=scratch,
                                    capture_output=True, text=True)
            if result.returncode == 0:
                break
            if attempt == 2:
                raise SystemExit(f"cannot download {name}: {result.stderr.strip()}")
            run("apt-get", "update", "-qq")
        package = glob.glob(os.path.join(scratch, "*.deb"))[0]
        unpacked = os.path.join(scratch, "root")
        run("dpkg-deb", "-x", package, unpacked)
        os.rename(unpacked, folder)
    return folder


def debian_kernel(directory, flavour="cloud-amd64"):
    """The path of Debian's current kernel of that flavour."""
    found = glob.glob(os.path.join(directory, f"linux-image-*-{flavour}", "boot", "vmlinuz-*"))
    if found:
        return found[0]
    for attempt in (1, 2):
        depends = subprocess.run(["apt-cache", "depends", f"linux-image-{flavour}"], capture_output=True, text=True)
        packages = [line.split()[-1] for line in depends.stdout.splitlines() if "Depends: linux-image-" in line]
        if packages:
            break
        if attempt == 2:
            raise SystemExit(f"apt knows no linux-image-{flavour}")
        run("apt-get", "update", "-qq")
    folder = debian_package(packages[0], directory)
    return glob.glob(os.path.join(folder, "boot", "vmlinuz-*"))[0]


def busybox_initramfs(path, local_script=""):
    """Writes a gzipped initramfs whose init is BusyBox and whose shell is on ttyS0. `local_script` runs before it."""
    with tempfile.TemporaryDirectory() as root:
        for folder in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root"):
            os.mkdir(os.path.join(root, folder))
        shutil.copy("/bin/busybox", os.path.join(root, "bin/busybox"))
        for applet in subprocess.run(["/bin/busybox", "--list-full"], capture_output=True, text=True,
                                     check=True).stdout.split():
            target = os.path.join(root, applet if applet.startswith(("bin/", "sbin/")) else
                                  "bin/" + os.path.basename(applet))
            if not os.path.lexists(target):
                os.symlink("/bin/busybox", target)
        os.symlink("/bin/busybox", os.path.join(root, "init"))
        for name, text in (("inittab", INITTAB), ("rc", RC), ("profile", PROFILE), ("rc.local", local_script)):
            if text:
                with open(os.path.join(root, "etc", name), "w") as file:
                    file.write(text)
        os.chmod(os.path.join(root, "etc/rc"), 0o755)
        names = subprocess.run(["find", ".", "-print0"], cwd=root, check=True, capture_output=True).stdout
        names = b"\0".join(sorted(name for name in names.split(b"\0") if name)) + b"\0"
        archive = subprocess.run(["cpio", "--null", "-o", "-H", "newc", "--quiet", "--reproducible", "-R", "0:0"],
                                 cwd=root, input=names, check=True, capture_output=True).stdout
        scratch = f"{path}.{os.getpid()}"
        with open(scratch, "wb") as file:
            subprocess.run(["gzip", "-9n"], input=archive, stdout=file, check=True)
        os.rename(scratch, path)
    return path
