#!/usr/bin/env python3
"""Faults around the hypervisor, which the debug build (build-debug, made by scripts/test) provokes by inject=: each is
named in one line with a code, and costs no more than it must. Skipped where that build is missing.
usage: injected_faults.py MACHINE"""

import os
import re

import support
from support import System, check

IMAGE = os.path.join(support.ROOT, "build-debug", "bulkhead.elf")
HALTED = r"Bulkhead \S+ is halted\.?\r\n"

# Faults with which nothing can go on, and all that is said of them.
HALTS = {
    "skylake": (
        ("vmx-locked", r"error: HV-E201: VT-x is switched off and locked by the firmware \(IA32_FEATURE_CONTROL 0x1\); "
                       r"enable VT-x in the firmware setup\r\n"),
        ("vmxon", r"error: HV-E206: VMXON failed on this core \(region 0x[0-9a-f]+\); the core stays offline\r\n"),
    ),
    "epyc": (
        # Before it comes to that, a firmware table that is corrupt is left out.
        ("svm-locked,bad-madt", r"error: HV-E122: ACPI table APIC at 0x[0-9a-f]+: its checksum is wrong; going on without "
                                r"it, update the firmware\r\n(?s:.*)error: HV-E223: AMD-V is disabled by the firmware \(VM_CR\.SVMDIS is locked\); enable SVM or "
                       r"[^\r\n]*firmware setup\r\n"),
        ("tsc-unstable", r"error: HV-E007: the TSC's frequency cannot be measured: neither PM timer nor PIT gives steady "
                         r"time; check the firmware setup\r\n"),
        ("timer-silent", r"error: HV-E022: the local APIC's timer does not run \(0 Hz\); report this machine\r\n"),
    ),
}

UNEXPECTED = r"HV-E009: unexpected exception in the hypervisor; report this\r\n"
OVERFLOW = r"HV-E013: stack overflow of the main stack of CPU 0; report this\r\n"
# Faults that end in a panic: the lines it begins with, and the stack it names.
PANICS = {
    "general-protection": (UNEXPECTED + r"  #GP general protection \(vector 13\), error code 0x0,", "main stack of CPU 0"),
    "page-fault": (UNEXPECTED + r"  #PF page fault \(vector 14\), error code 0x2, CR2 0x0000000000001000\r\n",
                   "main stack of CPU 0"),
    "invalid-opcode": (UNEXPECTED + r"  #UD invalid opcode \(vector 6\), error code 0x0,", "main stack of CPU 0"),
    "indirect-branch": (UNEXPECTED + r"  #CP control protection \(vector 21\), error code 0x3,", "main stack of CPU 0"),
    "return-address": (UNEXPECTED + r"  #CP control protection \(vector 21\), error code 0x1,", "main stack of CPU 0"),
    "double-fault": (UNEXPECTED + r"  #DF double fault \(vector 8\), error code 0x0,", r"none of ours \(RSP 0x1800\)"),
    "stack-overflow": (OVERFLOW, "guard page below the main stack of CPU 0|main stack of CPU 0"),
    "machine-check": (r"HV-E012: machine check; the hypervisor's memory at 0x[0-9a-f]+ has an uncorrectable error "
                      r"\(bank 0, status 0xbd00000000000000\), have it examined\r\n",
                      "main stack of CPU 0"),
    "assertion": (r"HV-E010: assertion failed: [^\r\n]*, [^\r\n]*fault_injection\.cpp:\d+\r\n", "main stack of CPU 0"),
}

ONE_VM = """\
[vm.echo]
kernel = "echo"
memory.max = "8M"
"""
CONFIG = """\
[vm.first]
kernel = "echo"
memory.max = "8M"

[vm.no-entry]
kernel = "echo"
memory.max = "8M"

[vm.last]
kernel = "echo"
memory.max = "8M"

[vm.spin]
kernel = "spin"
memory.max = "8M"
autostart = false
"""
MODULES = [(support.guest(name), name) for name in ("echo", "spin", "halt")]


def boot(machine, faults, config=CONFIG, modules=MODULES, options="", **machine_options):
    return System(machine, modules, config, options=f"inject={faults} {options}".strip(), image=IMAGE, memory=256,
                  **machine_options)


def halts(machine, fault, message):
    with boot(machine, fault) as system:
        system.expect(message)
        system.expect(HALTED)
        check(support.PROMPT not in system.machine.text() and "started" not in system.machine.text(),
              f"{fault}: one line, then halted")


def panics(machine, fault, with_faults="", options="", **machine_options):
    begin, stack = PANICS[fault]
    with boot(machine, fault + with_faults, ONE_VM, MODULES[:1], options, **machine_options) as system:
        system.expect(r"injecting: " + fault)
        system.expect(r"\r\n" + begin)
        at = system.machine.position
        system.expect(r"Resetting the machine\.\r\n" if "reset" in options else r"All cores are stopped\.\r\n")
        dump = system.machine.text()[at:]
        check(re.search(r"  stack: [^\r\n]*(" + stack + ")", dump), f"{fault}: the panic has its line and names the stack")
        check(re.search(r"0x[0-9a-f]{16} [^\r\n]*(strike|inject_next_fault|recurse|watch_machine|boot_main|run_hypervisor)",
                        dump), "and where it was, by name")
        if "reset" in options:
            system.machine.wait_end(30)
            print("ok: the machine is reset, as panic=reset has it", flush=True)
        return system.machine.text()


def talks(system, vm):
    system.attach(vm)
    system.expect("echo: ready\r\n")
    for character in "hello":
        system.machine.send(character)
        system.expect(character)
    system.detach()
    print(f"ok: {vm} talks", flush=True)


def told(system, *lines):
    """Waits until the log has each of these lines."""
    for line in lines:
        system.wait_until(lambda: re.search(line + r"$", system.command("dmesg"), re.MULTILINE), line)


def goes_on(machine):
    """Many faults at once of the kind that costs little: all are told, and what they do not concern runs."""
    at_start = {
        "skylake": "no-rsdp,deadline-silent",
        # Bochs' model of this processor knows neither PRED_CMD nor SPEC_CTRL; QEMU takes them for granted.
        "epyc": "pm-timer-silent,uart-stuck,every-barrier",
    }[machine]
    faults = at_start + (",vm-entry,unexpected-interrupt,spurious-interrupt,nmi,corrected-machine-check,"
                         "memory-of-vm,interrupt-storm")
    with boot(machine, faults, **support.real_time(machine)) as system:
        if machine == "epyc":
            stuck_uart(system)
        system.prompt()
        told(system, {
            "skylake": r"error: HV-E121: no ACPI root pointer found; going on with 1 CPU",
            "epyc": r"error: HV-E005: the console's UART takes no characters; the log goes to memory and the screen until it "
                    r"does, check the terminal's flow control",
        }[machine], {
            "skylake": r"warning: HV-E027: the local APIC's TSC-deadline timer does not interrupt; its one-shot mode serves "
                       r"instead",
            "epyc": r"TSC: [\d.]+ MHz by PIT.*",
        }[machine])
        told(system,
             r"warning: HV-E028: 1 unexpected interrupt\(s\), the last of vector 0x61; report this machine",
             r"\d+ spurious interrupt\(s\) of a local APIC",
             r"warning: HV-E029: 1 NMI\(s\) of unknown reason; the machine may have a hardware error",
             r"warning: HV-E014: 1 corrected machine check\(s\), the last in bank 0 with status 0x9000000000000000; have the "
             r"machine examined if that goes on",
             r"error: HV-E024: interrupt storm from the console's UART; its interrupt is off, check the line")
        states = {vm["name"]: vm["state"] for vm in system.json("list")}
        check(states["first"] in ("running", "blocked"), "the VM beside runs")
        check(states["no-entry"] == "crashed", "the VM that cannot be entered is stopped alone")
        check(re.search({"skylake": r"CR3-target count", "epyc": r"IOPM_BASE_PA = 0xffffffffff000"}[machine],
                        system.json("info no-entry")["reason"]), "with the field that is wrong")
        talks(system, "first")
        lost_memory(system, "last", r"0x[0-9a-f]+", 0, "0xbd00000000000000")
        if machine == "epyc":
            every_barrier(system)
            real_events(system)


def memory_of(mem, vm):
    """The ranges (start, length) of machine memory that a VM has, as `mem --json` tells: its overhead, then its RAM."""
    return [(int(each["start"], 16), each["bytes"]) for owner in mem["vms"] if owner["vm"] == vm for each in owner["ranges"]]


def lost_memory(system, vm, page, bank, status):
    """The VM whose memory the hardware has lost is stopped with its cause, starts from other memory, and nobody gets what
    is lost."""
    error = rf"its memory at ({page}) has an uncorrectable error \(bank {bank}, status {status}\)"
    told(system, rf"error: HV-E015: VM {vm}: {error}; the VM is stopped and 2 MiB are out of use, have the machine examined")
    check(system.vm(vm)["state"] == "crashed", f"{vm} alone is stopped: {system.vm(vm)['state']}")
    match = re.fullmatch(error, system.json(f"info {vm}")["reason"])
    check(match, "with page, bank and status as the reason")
    lost = int(match[1], 16)
    before = system.json("mem")
    system.command(f"destroy {vm}")
    after = system.json("mem")
    ranges = memory_of(before, vm)
    held = sum(length for _, length in ranges)
    check(any(start <= lost < start + length for start, length in ranges), "it was the VM's")
    check(after["free_bytes"] - before["free_bytes"] == held - (2 << 20), "all its memory is free again but 2 MiB")
    check(f"VM {vm} started" in system.command(f"start {vm}"), "it starts again")
    now = system.json("mem")
    check(not any(start <= lost < start + length for each in now["vms"] for start, length in memory_of(now, each["vm"])),
          "nobody has the lost page")
    talks(system, vm)


WATCHED = "".join(f"""\
[vm.on{core}]
kernel = "{'halt' if core else 'echo'}"
memory.max = "8M"
cpuset.cpus = "{core}"

""" for core in range(3))


def seconds(system, pattern):
    """The time stamp of a line of the log."""
    return float(re.search(r"\[ *([\d.]+)\] " + pattern + r"$", system.command("dmesg"), re.MULTILINE)[1])


def silent_cores(machine):
    """A core that hangs is named within a second, with where it is; its VM goes on when it does, and is stopped when it
    does not. The first core is watched by the one that has nothing to do."""
    with boot(machine, "core-silent,core-lost", WATCHED, cpus=4, **support.real_time(machine)) as system:
        system.prompt()
        for core, fault in ((1, "core-silent"), (2, "core-lost")):
            named = rf"error: HV-E043: core {core} \(APIC ID \d+\) has been silent for a second in the hypervisor"
            told(system, named, rf"error: HV-E043: core {core} is at:")
            after = seconds(system, named) - seconds(system, f"warning: injecting: {fault}")
            # It is announced up to some turns of the console before it strikes. QEMU's time is the host's, whose own load
            # may hold a core.
            check(0.5 < after < (2 if machine == "skylake" else 30), f"{fault} is noticed {after:.2f} s after its announcement")
        told(system, r"error: HV-E043: +0x[0-9a-f]{16} hang_if_told[^ ]*\+0x[0-9a-f]+", r"warning: core 1 goes on")
        system.wait_until(lambda: system.vm("on2")["state"] == "crashed", "the VM on the core that is lost is stopped")
        check(system.json("info on2")["reason"] == "core 2, on which it runs, does not answer", "with its cause")
        check("is silent" in system.command("start on2"), "and cannot be started")
        check(system.vm("on1")["state"] in ("running", "blocked"), "the one on the core that goes on is not")
        talks(system, "on0")
    with boot(machine, "first-core-silent", WATCHED, cpus=4, **support.real_time(machine)) as system:
        system.expect(r"injecting: first-core-silent")
        system.expect(r"HV-E048: core 0 has made no progress for 20 seconds; report this\r\n")
        system.expect(r"CPU 0 was at:\r\n +0x[0-9a-f]{16} [^\r\n]*(strike|inject_next_fault)")
        system.expect(r"All cores are stopped\.\r\n")
        print("ok: another core tells that core 0 hangs, and where", flush=True)


def every_barrier(system):
    """The guarded world switch and the flushes between guests, all of them."""
    report = system.json("mitigations")
    counts = {name: count for name, count in report["cores"][0].items() if name != "core"}
    check(len(counts) == 8 and all(counts.values()), f"each barrier is issued and counted: {counts}")
    check(counts["VERW at entry"] == counts["SPEC_CTRL at entry"] and counts["IBRS at exit"] == counts["IBPB at exit"],
          "each entry and each exit has all of its barriers")


def stuck_uart(system):
    """No byte of a stuck UART's is lost, and nobody waits for it: the screen shows how far the boot has come."""
    def shows(text):
        system.machine.pump(0.5)
        return text in support.screen_text(system.machine)

    system.wait_until(lambda: shows("VM last started"), "the screen shows that the boot goes on")
    check(support.PROMPT not in system.machine.text(), "while nothing comes from the UART")
    system.machine.send("\r")
    system.expect(r"Bulkhead \S+\r\n")
    system.expect(r"virtualisation: ")
    print("ok: what the UART did not take comes when it does", flush=True)


def real_events(system):
    """The emulator's own NMI, with a guest on the core that an NMI would end, and its own machine checks."""
    check("VM spin started" in system.command("start spin"), "a guest that never halts")
    for _ in range(3):
        system.machine.command("inject-nmi")
    told(system, r"warning: HV-E029: [123] NMI\(s\) of unknown reason; the machine may have a hardware error")
    check(system.vm("spin")["state"] == "running", "NMIs are the host's: the guest without an IDT runs on")
    system.command("destroy spin")
    monitor = lambda line: system.machine.command("human-monitor-command", **{"command-line": line})
    # While a guest runs, QEMU looks at the guest's CR4.MCE and not at the host's: it would shut down.
    for vm in ("first", "last"):
        system.command(f"pause {vm}")
    corrected, recoverable, fatal = 0x9000000000000000, 0xBD000000000000CF, 0xB600000000000000
    monitor(f"mce 0 3 {corrected:#x} 0x0 0x0 0x0")
    told(system, r"warning: HV-E014: 1 corrected machine check\(s\), the last in bank 3 with status 0x9000000000000000; .*")
    # Restart valid; a physical address, known to the page.
    page = memory_of(system.json("mem"), "last")[1][0] + 0x3000
    monitor(f"mce 0 9 {recoverable:#x} 0x5 {page + 0x40:#x} 0x8c")
    lost_memory(system, "last", hex(page), 9, "0xbd000000000000cf")
    system.command("destroy last")
    monitor(f"mce 0 4 {fatal:#x} 0x4 0x1000 0x0")
    system.expect(r"\r\nHV-E012: machine check; the hardware reports an uncorrectable error, have it examined\r\n"
                  r"  bank 4: status 0xb600000000000000, address 0x1000\r\n")
    system.expect(r"All cores are stopped\.\r\n")
    print("ok: a real machine check whose cause is unknown is a panic", flush=True)


def failing_allocations(machine):
    """A VM is made with each of its allocations failing in turn: each time it is refused, and nothing is lost."""
    config = ONE_VM + "autostart = false\n"
    with boot(machine, "allocation", config, MODULES[:1]) as system:
        system.prompt()
        before = system.json("integrity")
        failures = 0
        while "VM echo started" not in (said := system.command("start echo")):
            failures += 1
            if system.json("integrity") != before or not re.search(r"out of arena memory|kept back", said):
                raise AssertionError(f"after failure {failures}: {system.json('integrity')}, was {before}; {said}")
            if failures == 500:
                raise AssertionError("it never starts")
        check(failures > 20, f"creation failed at {failures} points, and every count was as before after each")
        talks(system, "echo")
        system.command("destroy echo")
        check(system.json("integrity") == before, "and after it was made and destroyed")


def test(machine):
    if not os.path.exists(IMAGE):
        support.skip(f"there is no {IMAGE}")
    with open(support.IMAGE, "rb") as file:
        release = file.read()
    check(b"injecting: " not in release and b"general-protection" not in release, "the release image cannot inject faults")
    if machine == "tigerlake":
        text = panics(machine, "indirect-branch")
        check("indirect branches of the host are tracked (CET)" in text, "the log says that branches are tracked")
        check("its returns have shadow stacks" in text, "and that there are shadow stacks")
        for fault in ("return-address", "stack-overflow", "double-fault"):
            panics(machine, fault)
        text = panics(machine, "general-protection", ",nmi", cpus=2)
        check("core 1: APIC ID 1, online" in text, "another core has its own, and the panic's NMI reaches it")
        check("CPU 1 was at:" in text, "whose NMI has its own, too")
        return
    for fault, message in HALTS[machine]:
        halts(machine, fault, message)
    if machine == "skylake":
        text = panics(machine, "general-protection", ",core-asleep,core-vmxon", cpus=3)
        check(re.search(r"HV-E040: no answer within 100 ms", text), "the core that does not start is offline")
        check(re.search(r"HV-E206: VMXON failed on this core", text), "and so is the one whose VMXON fails")
        for fault in ("double-fault", "stack-overflow", "machine-check"):
            panics(machine, fault)
    else:
        text = panics(machine, "invalid-opcode", cpus=2)
        check("CPU 1 was at:" in text, "the other core is frozen and tells where it was")
        for fault in ("page-fault", "stack-overflow", "double-fault"):
            panics(machine, fault)
        panics(machine, "assertion", options="panic=reset")
    goes_on(machine)
    failing_allocations(machine)
    silent_cores(machine)


if __name__ == "__main__":
    support.main(test)
