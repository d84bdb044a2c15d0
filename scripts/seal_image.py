#!/usr/bin/env python3
"""Fits a linked image for indirect branch tracking (CET IBT), by the relocations that `ld --emit-relocs` kept.

    seal_image.py IMAGE.elf

The compiler begins every function that might be called through a pointer with ENDBR64. Of these only the functions whose
address is really taken keep it: in the others it becomes a NOP, so that no indirect branch may end there. And direct
calls skip the instruction either way, which makes the tracking free for them.
"""
import argparse
import collections
import struct
import sys

ENDBR64 = bytes.fromhex("f30f1efa")
NOP = bytes.fromhex("0f1f4000")  # four bytes: nop dword [rax + 0]
R_PC32, R_PLT32 = 2, 4
ABSOLUTE = {1, 10, 11}  # R_X86_64_64, _32, _32S
SHT_RELA, SHT_SYMTAB, SHF_EXECINSTR = 4, 2, 4
STT_FUNC = 2
CALL, JUMP = 0xE8, 0xE9

Section = collections.namedtuple("Section", "name type flags address offset size link info align entry")


class Image:
    def __init__(self, data):
        self.data = bytearray(data)
        if data[:6] != b"\x7fELF\x02\x01":
            sys.exit("seal_image.py: this is no little-endian 64-bit ELF file")
        offset, = struct.unpack_from("<Q", data, 0x28)
        size, count = struct.unpack_from("<HH", data, 0x3A)
        self.sections = [Section(*struct.unpack_from("<IIQQQQIIQQ", data, offset + i * size)) for i in range(count)]
        table = next(s for s in self.sections if s.type == SHT_SYMTAB)
        # (info, section, value)
        self.symbols = [struct.unpack_from("<4xBxHQ", data, table.offset + i * 24) for i in range(table.size // 24)]

    def code(self, address):
        """Where in the file the code at `address` is; None if there is none."""
        for s in self.sections:
            if s.flags & SHF_EXECINSTR and s.address <= address < s.address + s.size:
                return s.offset + address - s.address
        return None

    def relocations(self):
        """(section that holds it, address, type, target) of each relocation."""
        for s in self.sections:
            if s.type != SHT_RELA:
                continue
            for at in range(s.offset, s.offset + s.size, 24):
                address, info, addend = struct.unpack_from("<QQq", self.data, at)
                yield self.sections[s.info], address, info & 0xFFFFFFFF, self.symbols[info >> 32][2] + addend


def seal(image):
    """Seals it; returns how many functions keep their ENDBR64, how many lost it, and how many direct calls skip one."""
    taken, calls = set(), []
    for section, address, kind, target in image.relocations():
        if kind in ABSOLUTE:
            taken.add(target)
        elif kind in (R_PC32, R_PLT32):
            target = (target + 4) & (1 << 64) - 1
            at = image.code(address) if section.flags & SHF_EXECINSTR else None
            if at is not None and image.data[at - 1] in (CALL, JUMP):
                calls.append((at, target))
            else:
                # A conditional jump, or an operand relative to RIP: its last byte may not be the instruction's, so the
                # target may be anything near.
                taken.update(range(target, target + 8))
    kept = lost = skipped = 0
    for at, target in calls:
        begin = image.code(target)
        if begin is not None and image.data[begin:begin + 4] == ENDBR64:
            displacement, = struct.unpack_from("<i", image.data, at)
            struct.pack_into("<i", image.data, at, displacement + 4)
            skipped += 1
    for address in {value for info, section, value in image.symbols if info & 15 == STT_FUNC and section != 0}:
        begin = image.code(address)
        if begin is None or image.data[begin:begin + 4] != ENDBR64:
            continue
        if address in taken:
            kept += 1
        else:
            image.data[begin:begin + 4] = NOP
            lost += 1
    return kept, lost, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    options = parser.parse_args()
    with open(options.image, "rb") as file:
        image = Image(file.read())
    if not any(s.type == SHT_RELA for s in image.sections):
        sys.exit(f"seal_image.py: {options.image} has no relocations; link it with --emit-relocs")
    kept, lost, skipped = seal(image)
    if kept == 0 or skipped == 0:
        sys.exit(f"seal_image.py: {options.image} has no ENDBR64; compile it with -fcf-protection=branch")
    with open(options.image, "wb") as file:
        file.write(image.data)
    print(f"{kept} functions may be reached by pointer, {lost} may not; {skipped} direct calls")


if __name__ == "__main__":
    main()
