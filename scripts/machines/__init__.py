"""Machines that boot a disk image: Bochs and QEMU, driven headless over their first serial port."""
