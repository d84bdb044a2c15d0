#!/usr/bin/env python3
"""Makes the symbol table for backtraces (format: kernel/bootinfo/elf_symbols.hpp) from a linked image.

    make_symbols.py IMAGE.elf symbols.bin [--asm symbols.asm] [--nm nm]

Only code symbols enter the table, so it may lie anywhere behind the code: the second link, with the table in it, must
leave the code where the first link had it. --asm writes a NASM source that puts the table into section .symbols between
the global labels symbols_begin and symbols_end.
"""
import argparse
import struct
import subprocess
import sys

MAGIC = 0x4D595342
LONGEST_NAME = 120
LOWEST = 1 << 63  # the 32-bit entry code, linked where it is loaded, is gone by the time names are wanted


def shorten(name):
    """Drops the parameter list, and what makes every name longer without telling anything."""
    name = name.replace("bulkhead::", "").replace("(anonymous namespace)::", "")
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0 and not name[:i].endswith("operator"):
            name = name[:i]
            break
    return name[:LONGEST_NAME]


def code_symbols(lines):
    """{address: name} of the code symbols in nm's output; of several at one address, the shortest name."""
    symbols = {}
    for line in lines:
        parts = line.strip().split(" ", 2)
        if len(parts) != 3 or parts[1] not in "TtWw" or parts[2].startswith("."):
            continue
        address, name = int(parts[0], 16), shorten(parts[2])
        if address < LOWEST:
            continue
        if address not in symbols or len(name) < len(symbols[address]):
            symbols[address] = name
    return symbols


def make_table(symbols):
    if not symbols:
        return struct.pack("<IIQ", MAGIC, 0, 0)
    addresses = sorted(symbols)
    base = addresses[0]
    if addresses[-1] - base >= 1 << 32:
        sys.exit("make_symbols.py: the image's code spans more than 4 GiB")
    entries, names, offset_of = b"", b"", {}
    names_at = 16 + 8 * len(addresses)
    for address in addresses:
        name = symbols[address]
        if name not in offset_of:
            offset_of[name] = names_at + len(names)
            names += name.encode() + b"\0"
        entries += struct.pack("<II", address - base, offset_of[name])
    return struct.pack("<IIQ", MAGIC, len(addresses), base) + entries + names


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("table")
    parser.add_argument("--asm")
    parser.add_argument("--nm", default="nm")
    options = parser.parse_args()
    if options.image == "-":
        lines = sys.stdin.read().splitlines()
    else:
        lines = subprocess.run([options.nm, "-n", "-C", "--defined-only", options.image], check=True,
                               capture_output=True, text=True).stdout.splitlines()
    with open(options.table, "wb") as file:
        file.write(make_table(code_symbols(lines)))
    if options.asm:
        with open(options.asm, "w") as file:
            file.write("section .symbols progbits alloc noexec nowrite align=8\n"
                       "global symbols_begin, symbols_end\n"
                       f"symbols_begin:\n    incbin \"{options.table}\"\nsymbols_end:\n")


if __name__ == "__main__":
    main()
