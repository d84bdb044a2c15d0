#!/usr/bin/env python3
"""Checks who includes whom: the order of the rooms in design terms, and that assembly stays in hardware rooms."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A room may include itself and what stands before it. Rooms of one tuple may include one another.
ORDER = [
    ("kernel/base",),
    ("arch/x86/regs", "arch/x86/paging"),
    ("kernel/sync", "kernel/log", "kernel/mem", "kernel/bootinfo", "kernel/sched", "kernel/smp"),
    ("vmm", "vmm/decode", "vmm/dev", "vmm/loader", "vmm/config", "vmm/console", "vmm/record"),
    ("arch/x86/vmx", "arch/x86/svm"),
    ("arch/x86/cpu", "drivers"),
    ("boot",),
]
HARDWARE = {"arch/x86/cpu", "drivers", "boot"}
# The two backends are strangers to each other; the boot-time choice is the only place that knows both.
FORBIDDEN = {("arch/x86/vmx", "arch/x86/svm"), ("arch/x86/svm", "arch/x86/vmx")}

RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def main():
    problems = []
    for room in RANK:
        folder = os.path.join(ROOT, room)
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if not name.endswith((".hpp", ".cpp")):
                if name.endswith((".asm", ".S")) and room not in HARDWARE:
                    problems.append(f"{room}/{name}: assembly outside the hardware rooms")
                continue
            with open(path) as file:
                lines = file.read().splitlines()
            if name.endswith(".hpp") and "#pragma once" not in lines:
                problems.append(f"{room}/{name}: no #pragma once")
            for number, line in enumerate(lines, 1):
                where = f"{room}/{name}:{number}"
                if room not in HARDWARE and re.search(r"\b(__asm__|asm)\s*(volatile|__volatile__)?\s*\(", line):
                    problems.append(f"{where}: inline assembly outside the hardware rooms")
                match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
                if not match:
                    continue
                target = os.path.dirname(match.group(1))
                if target == "generated":
                    continue
                if target not in RANK:
                    problems.append(f"{where}: {match.group(1)} is in no known room")
                elif RANK[target] > RANK[room]:
                    problems.append(f"{where}: {room} may not include {target}")
                elif (room, target) in FORBIDDEN:
                    problems.append(f"{where}: {room} may not include {target}")
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem(s) in {len(RANK)} rooms")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
