#!/usr/bin/env python3
"""Fetches and makes what the system tests boot, so that no two of them do it at the same time."""

import os

import guest_images

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    directory = os.path.join(ROOT, "build", "guests")
    os.makedirs(directory, exist_ok=True)
    guest_images.debian_kernel(directory)
    for package in ("memtest86+", "gnumach-image-1.8-486", "grub-invaders"):  # for guests.py
        guest_images.debian_package(package, directory)
    guest_images.busybox_initramfs(os.path.join(directory, "initrd.gz"))


if __name__ == "__main__":
    main()
