"""Where an emulator itself is wrong: probes of the inmate that fail there on the bare emulator too.
`inmate.py MACHINE --bare` is the evidence. FAULTS: patterns of "id case", with the reason. FATAL: cases (beginnings of
names) after which the emulator cannot go on, so that they are not tried; BARE_FATAL: nor, on the bare emulator, these."""

FAULTS = {
    "epyc": [
        (r"A3 (fs_base|gs_base|kernel_gs_base|lstar|cstar)\..*", "TCG takes addresses that are not canonical"),
        (r"A9 cr0\.bit\..*", "TCG ignores CR0[63:32]"),
        (r"A12 cr8\.bit\..*", "TCG ignores CR8[63:4]"),
        (r"A13 xsetbv\.osxsave-clear\.ring3", "TCG looks at the ring first"),
        (r"A14 general-detect\..*", "TCG has no general detect"),
        (r"A16 (umonitor|umwait|tpause)(\.ring3)?", "TCG takes WAITPKG for fences and CLRSSBSY"),
        (r"A16 xbegin(\.ring3)?", "TCG jumps, and aborts never"),
        (r"B21 (mov|pop)\.1(\..*)?", "TCG does not look at ModRM.reg of C7 and 8F"),
        (r"C34 lock\..*", "TCG ignores LOCK where it does not belong"),
        (r"C34 rex\.stray", "TCG lets a REX prefix stand anywhere"),
        (r"C39 (ts|em)\.emms", "TCG does not check CR0 for EMMS"),
        (r"B25 step\.pause", "TCG steps over the instruction behind PAUSE"),
        (r"B25 step\.fault\.mov-to-cr8", "TCG ignores CR8[63:4]"),
        (r"B28 int\.(ring3|limit|absent|type)\..*|B28 icebp\.not-int1", "TCG's error code has 16 times the vector"),
        (r"B29 (jmp|call|ret|push|pop)\.[0-9a-f]*", "TCG jumps to such addresses, and has #GP for #SS"),
        (r"B28 int1\.ring3", "TCG does not know INT1"),
        (r"C40 .*", "TCG does not check segment limits and types"),
        (r"C33 ring3\.alignment\..*", "TCG does not check alignment"),
        (r"E48 reserved-bit\..*", "TCG leaves P out of the error code"),
    ],
    "skylake": [
    ],
}

# Where Bulkhead is known to differ from a physical machine, without harm to anyone else.
KNOWN = {
    "epyc": [],
    "skylake": [],
}

FATAL = {
    # TCG loads CR0 with PG and no PE, and the like, without #GP; VMRUN then refuses what it has saved. It clears PAE in
    # long mode, and turns other illegal values of CR4 and CR3 into an invalid exit (or hangs, without a hypervisor). It
    # executes what LOCK makes undefined. LTR takes a null selector and a 16-bit TSS, and the next event aborts QEMU.
    "epyc": ["cr0.pg-", "cr0.pe-", "cr0.nw-", "cr4.bit.", "cr3.bit.", "lock.hlt", "lock.lgdt", "lock.iret", "ltr.type.1", "ltr.null"],
    "skylake": [],
}

BARE_FATAL = {
    "epyc": [],
    "skylake": [],
}
