#!/usr/bin/env python3
"""The worst case of every kind of stack, from the machine code of a linked image. Fails where one needs more than half of its
stack, or where code is recursive without a bound that stack_rules.py declares.

    stack_use.py IMAGE.elf [--paths]

How: each function is disassembled and its stack pointer followed along every path. Direct calls are edges of the call graph.
A virtual call tells its slot; its targets are that slot's functions in all classes of the interfaces that the caller may use
(CALLERS of stack_rules.py; a caller that is not listed there may use them all). A call through another pointer goes to what
POINTERS names.
"""
import argparse
import collections
import os
import re
import struct
import subprocess
import sys

from stack_rules import (ALL_SINKS, BOUNDS, CALLERS, CONTEXTS, DEEPEST_FORMAT, EXCLUDED, FORMATTER, LAST, POINTERS,
                         SINK_LEVELS)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Bytes that the processor and trap_common push (arch/x86/cpu/traps.asm): SS to RIP after alignment, error code and vector,
# 15 registers.
TRAP_FRAME = 40 + 8 + 16 + 15 * 8

# An interrupt comes at any depth of the main stack, but not while another is handled; an exception (a guarded instruction's,
# see fix_up()) at any depth of both. A panic is on top of everything and needs not stay below the half.
FIRST_STACK, MAIN_STACK, OTHER_STACK = 40960, 16384, 4096

# Shadow stacks (arch/x86/cpu/stacks.hpp): 8 bytes a call, 24 an interrupt or exception; the token takes 8. The guarded world
# switch fills the return predictor by 32 calls, on both kinds of stack.
SHADOW_STACK, SHADOW_OF_IST, SHADOW_FRAME, SHADOW_FILL = 4096 - 8, 4096 // 3 // 32 * 32 - 8, 24, 32 * 8

NUMBER = r"(0x[0-9a-f]+|\d+)"


class Function:
    def __init__(self, address, name):
        self.address, self.name = address, shorten(name)
        self.code = []
        self.frame = 0
        self.calls = []   # (depth, address)
        self.slots = []   # (depth, possible slots of a virtual function, instruction)
        self.others = []  # (depth, instruction)
        self.problem = None


def shorten(name):
    name = re.sub(r" \[clone [^\]]*\]", "", name)
    return name.replace("bulkhead::", "").replace("(anonymous namespace)::", "")


def disassemble(image, objdump):
    text = subprocess.run([objdump, "-d", "-C", "-M", "intel", "--no-show-raw-insn", image], check=True, capture_output=True,
                          text=True).stdout
    functions, current = {}, None
    for line in text.splitlines():
        if match := re.match(r"^([0-9a-f]{16}) <(.*)>:$", line):
            current = functions[int(match[1], 16)] = Function(int(match[1], 16), match[2])
        elif current and (match := re.match(r"^ *([0-9a-f]+):\s+(.*)$", line)):
            instruction = re.sub(r"\s+[<#].*$", "", match[2].strip())
            current.code.append((int(match[1], 16), re.sub(r"^(notrack|bnd|rep) ", "", instruction)))
    return functions


def signed(text):
    value = int(text, 0)
    return value - (1 << 64) if value >> 63 else value


def follow(function):
    """The depth of the stack at each instruction, and the calls with theirs."""
    index = {address: i for i, (address, _) in enumerate(function.code)}
    seen, tables = set(), []
    work = [(0, 0, None)]
    while work or tables:
        if not work:
            # Behind a switch's jump table: what no other path reaches.
            depth, base = max(tables, key=lambda each: each[0])
            rest = [i for i, (address, text) in enumerate(function.code)
                    if address not in seen and not re.match(r"nop|int3|xchg +ax,ax|cs nop|data16|endbr|ud2", text)]
            if not rest:
                break
            work.append((rest[0], depth, base))
        i, depth, base = work.pop()
        while i < len(function.code):
            address, text = function.code[i]
            if address in seen:
                break
            seen.add(address)
            operation, _, operands = text.partition(" ")
            operands = operands.strip()
            if operation.startswith("push"):
                depth += 8
            elif operation.startswith("pop") and operation != "popcnt":
                depth -= 8
            elif operation in ("sub", "add") and operands.startswith("rsp,"):
                if not re.match(rf"rsp,{NUMBER}$", operands):
                    function.problem = text
                else:
                    amount = signed(operands[4:])
                    depth += amount if operation == "sub" else -amount
            elif operation == "and" and operands.startswith("rsp,"):
                depth += 64
            elif text in ("mov    rbp,rsp",):
                base = depth
            elif operation == "leave":
                depth = (base or 0) - 8
            elif operands.startswith("rsp,") and operation in ("mov", "lea", "xchg"):
                if (match := re.match(rf"rsp,\[rbp-{NUMBER}\]$", operands)) and base is not None:
                    depth = base + int(match[1], 0)
                elif operands in ("rsp,rbp", "rsp,[rbp+0x0]") and base is not None:
                    depth = base
                elif match := re.match(rf"rsp,\[rsp([+-]){NUMBER}\]$", operands):
                    depth += int(match[2], 0) * (-1 if match[1] == "+" else 1)
                else:
                    function.problem = text
            function.frame = max(function.frame, depth)
            if operation == "call":
                if re.match(r"[0-9a-f]{6,}$", operands):
                    function.calls.append((depth, int(operands, 16)))
                else:
                    call_by_pointer(function, depth, operands, text)
            elif operation == "jmp":
                if re.match(r"[0-9a-f]{6,}$", operands):
                    target = int(operands, 16)
                    if target in index:
                        i = index[target]
                        continue
                    function.calls.append((depth - 8, target))
                elif "*8" in operands:
                    tables.append((depth, base))
                else:
                    call_by_pointer(function, depth - 8, operands, text)
                break
            elif re.match(r"j|loop", operation) and re.match(r"[0-9a-f]{6,}$", operands):
                target = int(operands, 16)
                if target in index:
                    work.append((index[target], depth, base))
                else:
                    function.calls.append((depth - 8, target))
            elif re.match(r"ret|iret|ud2|int3", operation):
                break
            i += 1


def call_by_pointer(function, depth, operand, text):
    names = {"r" + x: "e" + x for x in ("ax", "bx", "cx", "dx", "si", "di", "bp")}
    if match := re.match(r"QWORD PTR \[r\w+(?:\+0x([0-9a-f]+))?\]$", operand):
        function.slots.append((depth, {int(match[1] or "0", 16) // 8}, text))
        return
    slots, found = set(), False
    if re.match(r"r\w+$", operand):
        writes = [re.match(rf"mov\s+(?:{operand}|{names.get(operand, operand + 'd')}),(.*)$", each)
                  for _, each in function.code]
        for source in {match[1] for match in writes if match}:
            if match := re.match(r"QWORD PTR \[r(?!bp|sp)\w+(?:\+0x([0-9a-f]+))?\]$", source):
                slot = int(match[1] or "0", 16) // 8
                if slot < 64:
                    slots.add(slot)
            elif re.match(r"0xffffffff[0-9a-f]{8}$", source):
                function.calls.append((depth, int(source, 16)))
                found = True
    if slots:
        function.slots.append((depth, slots, text))
    elif not found:
        function.others.append((depth, text))


def bases_of_classes():
    """{class: its base classes}, from the source. Classes of drivers/ and arch/x86/vmx, svm with their namespace."""
    bases = {}
    pattern = re.compile(r"^\s*(?:class|struct) (?:\[\[[^]]*\]\] )?(\w+)(?: final)?\s*: ([^{;]+)\{", re.MULTILINE)
    for room in ("arch", "boot", "drivers", "kernel", "vmm"):
        for folder, _, files in os.walk(os.path.join(ROOT, room)):
            for name in files:
                if not name.endswith(("pp",)):
                    continue
                with open(os.path.join(folder, name)) as file:
                    for match in pattern.finditer(file.read()):
                        parents = [re.sub(r"public|private|protected", "", each).strip() for each in match[2].split(",")]
                        key = ("drivers::" if room == "drivers" else "") + match[1]
                        bases[key] = [parent.split("<")[0] for parent in parents]
    return bases


def root_of(name, bases):
    while True:
        known = [each for each in (name, "drivers::" + name, name.split("::")[-1]) if each in bases]
        if not known:
            return name
        name = bases[known[0]][0]


def read_vtables(image, functions, nm):
    """[(class, interface, [functions])], one for each base of each class."""
    with open(image, "rb") as file:
        data = file.read()
    offset, = struct.unpack_from("<Q", data, 32)
    count, = struct.unpack_from("<H", data, 56)
    segments = [struct.unpack_from("<IIQQQQQQ", data, offset + i * 56) for i in range(count)]

    def at(address, size):
        for kind, _, start, virtual, _, in_file, _, _ in segments:
            if kind == 1 and virtual <= address < virtual + in_file:
                return data[start + address - virtual:start + address - virtual + size]
        sys.exit(f"stack_use.py: {address:#x} is not in the image")

    bases = bases_of_classes()
    tables = []
    lines = subprocess.run([nm, "-C", "-S", image], check=True, capture_output=True, text=True).stdout.splitlines()
    for line in lines:
        match = re.match(r"([0-9a-f]{16}) ([0-9a-f]{16}) \S vtable for (.*)$", line)
        if not match:
            continue
        size = int(match[2], 16)
        parts, part = [], None
        for entry in struct.unpack(f"<{size // 8}Q", at(int(match[1], 16), size)):
            if entry in functions:
                if part is None:
                    part = []
                    parts.append(part)
                part.append(entry)
            else:
                part = None  # offset to top, type information; pure virtual functions have no class of their own
        name = re.sub(r"<.*", "", shorten(match[3]))
        short = name if name in bases else name.split("::")[-1]
        parents = bases.get(short)
        if parents is None:
            sys.exit(f"stack_use.py: no base class of {name} was found in the source")
        if len(parts) > len(parents):
            sys.exit(f"stack_use.py: {name} has {len(parts)} tables of virtual functions, and {len(parents)} base classes")
        # A base without virtual functions has no table; there is none in front of one that has.
        for parent, entries in zip(parents, parts):
            tables.append((name, root_of(parent, bases), entries))
    return tables


class Graph:
    def __init__(self, functions, tables):
        self.functions = functions
        self.methods = collections.defaultdict(lambda: collections.defaultdict(set))
        self.level_of, self.sinks_of = {}, collections.defaultdict(set)
        for name, interface, entries in tables:
            level = next((level for pattern, level in SINK_LEVELS if re.search(pattern, name)), 0)
            for slot, address in enumerate(entries):
                self.methods[interface][slot].add(address)
                if interface == "Sink":
                    self.level_of[address] = max(level - slot / 2, self.level_of.get(address, 0))
                    self.sinks_of[address].add(name)
        self.by_name = collections.defaultdict(set)
        for address, function in functions.items():
            self.by_name[function.name].add(address)
        self.unresolved = []
        self.known = {}

    def node(self, address, level=ALL_SINKS, context=None, formats=0):
        """The function there, as it is called with these sinks and from so many formats."""
        name = self.functions[address].name
        context = next((i for i, (pattern, _) in enumerate(CONTEXTS) if re.search(pattern, name)), context)
        return address, level, context, formats

    def targets(self, node):
        """(depth, node) of everything that the function of a node may call."""
        if node not in self.known:
            self.known[node] = list(self.find_targets(node))
        return self.known[node]

    def find_targets(self, node):
        function = self.functions[node[0]]
        formats = node[3] + (1 if re.search(FORMATTER, function.name) else 0)
        for depth, (address, level) in self.all_targets(function, node[1], node[2], formats):
            name = self.functions[address].name
            target = self.node(address, level, node[2], 0 if address in self.sinks_of else formats)
            if re.search(LAST, name) and not re.search(LAST, function.name):
                continue
            if any(re.search(caller, function.name) and re.search(callee, name) for caller, callee, _ in EXCLUDED):
                continue
            yield depth, target

    def all_targets(self, function, level, context, formats):
        for depth, address in function.calls:
            if address in self.functions:
                yield depth, (address, level)
            elif address - 4 in self.functions:  # behind its ENDBR64
                yield depth, (address - 4, level)
        interfaces, allowed = None, ""
        for pattern, names, *more in CALLERS:
            if re.search(pattern, function.name):
                interfaces, allowed = names.split(), "".join(more)
                break
        pointers = [target for pattern, target in POINTERS if re.search(pattern, function.name)]
        for depth, slots, text in function.slots:
            some = False
            for interface, methods in self.methods.items():
                if interfaces is not None and interface not in interfaces:
                    continue
                for address in (each for slot in slots for each in methods.get(slot, ())):
                    if not re.search(allowed, self.functions[address].name):
                        continue
                    some = True
                    if interface != "Sink":
                        yield depth, (address, level)
                    elif self.level_of[address] < level and (context is None or any(
                            re.search(CONTEXTS[context][1], name) for name in self.sinks_of[address])):
                        yield depth, (address, self.level_of[address])
            if not some and not pointers:
                self.unresolved.append((function.name, text))
        for depth, text in function.others:
            if not pointers:
                self.unresolved.append((function.name, text))
        depths = [depth for depth, *_ in function.slots + function.others]
        for target in pointers if formats < DEEPEST_FORMAT else ():
            for name, addresses in self.by_name.items():
                if re.search(target, name):
                    for address in addresses:
                        yield max(depths, default=function.frame), (address, level)


def components(graph, roots):
    """Strongly connected components of what the roots reach, callees first."""
    index, low, on_stack, stack, result = {}, {}, set(), [], []
    for root in roots:
        if root in index:
            continue
        work = [(root, iter(list(graph.targets(root))))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for _, target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(list(graph.targets(target)))))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = []
                    while True:
                        each = stack.pop()
                        on_stack.discard(each)
                        component.append(each)
                        if each == node:
                            break
                    result.append(component)
    return result


def worst_cases(graph, roots, shadow=False):
    """{node: (bytes below its return address, the node it calls then)}. Complains of recursion without a bound. shadow: on
    the shadow stack, where there are return addresses only, also those of calls that are jumps in truth."""
    def frame_of(function):
        return 0 if shadow else function.frame

    worst, complaints = {}, []
    for component in components(graph, roots):
        members = set(component)
        cyclic = len(component) > 1 or any(target == component[0] for _, target in graph.targets(component[0]))
        if not cyclic:
            node = component[0]
            function = graph.functions[node[0]]
            deepest, path = frame_of(function), None
            for depth, target in graph.targets(node):
                below = (0 if shadow else depth) + 8 + worst[target][0]
                if below > deepest:
                    deepest, path = below, target
            worst[node] = deepest, path
            continue
        names = {graph.functions[address].name for address, *_ in component}
        bounds = [bound for pattern, bound, _ in BOUNDS if any(re.search(pattern, name) for name in names)]
        if not bounds:
            complaints.append("recursion without a declared bound: " + ", ".join(sorted(names)))
        # Each round passes each function at most once, and leaves from the deepest.
        one_round = sum(frame_of(graph.functions[address]) + 8 for address in {address for address, *_ in component})
        beyond = max(((8 + worst[target][0], target) for node in component
                      for _, target in graph.targets(node) if target not in members),
                     default=(0, None), key=lambda each: each[0])
        for node in component:
            worst[node] = max(bounds, default=1) * one_round + beyond[0], beyond[1]
    return worst, complaints


def path_of(worst, node):
    while node is not None:
        yield node
        node = worst[node][1]


def report(graph, options):
    def find(pattern):
        found = [address for name, addresses in graph.by_name.items() if re.search(pattern, name) for address in addresses]
        if not found:
            sys.exit(f"stack_use.py: no function is called {pattern}")
        return [graph.node(address) for address in found]

    first, others = find(r"^boot_main$"), find(r"^core_entered$")
    interrupts, nmi = find(r"^dispatch_interrupt\("), find(r"^dispatch_nmi\(")
    checks, panics, fixes = find(r"^survive_machine_check\("), find(r"^panic_on_trap\("), find(r"^trap_dispatch$")
    freeze = find(r"^freeze_for_panic\(")
    roots = first + others + interrupts + nmi + checks + panics + fixes + freeze
    worst, complaints = worst_cases(graph, roots)
    for function in graph.functions.values():
        if function.problem and function.name not in ("upper_half.found", "refuse", "protected_mode", "boot_entry"):
            complaints.append(f"{function.name}: the stack pointer cannot be followed at: {function.problem}")
    for name, text in sorted(set(graph.unresolved)):
        complaints.append(f"{name}: nothing is declared to be called by: {text}")

    def deepest(nodes):
        return max(nodes, key=lambda node: worst[node][0])

    dispatcher = graph.functions[fixes[0][0]].frame + 8
    trap = TRAP_FRAME + 8 + dispatcher
    interrupt = trap + 8 + worst[deepest(interrupts)][0]
    exception, panic = trap, trap + 8 + worst[deepest(panics)][0]
    first_use = worst[deepest(first)][0] + SHADOW_FILL + interrupt + exception
    # The console's interrupt goes to core 0.
    handlers = [node for node in find(r"^on_\w+\(void\*\)$|^on_unexpected_interrupt")
                if not graph.functions[node[0]].name.startswith("on_console")]
    others_interrupt = trap + 8 + graph.functions[interrupts[0][0]].frame + 8 + max(worst[node][0] for node in handlers)
    others_use = worst[deepest(others)][0] + SHADOW_FILL + others_interrupt + exception
    stacks = [
        ("core 0", first_use, FIRST_STACK, [first, interrupts]),
        ("other cores", others_use, MAIN_STACK, [others]),
        ("NMI", trap + 8 + max(worst[deepest(nmi)][0], exception), OTHER_STACK, [nmi]),
        ("machine check", trap + 8 + worst[deepest(checks)][0] + exception, OTHER_STACK, [checks]),
    ]
    print("STACK               BYTES  HALF")
    for name, use, size, parts in stacks:
        print(f"{name:18} {use:6} {size // 2:5}")
        if use > size // 2:
            complaints.append(f"the {name} stack needs {use} bytes, more than half of its {size}")
        if options.paths:
            for part in parts:
                for address, *more in path_of(worst, deepest(part)):
                    print(f"{worst[(address, *more)][0]:8} {graph.functions[address].name[:100]}")
    # A panic does not come back: it may use all that is left.
    for name, use, size in (("core 0", first_use + panic, FIRST_STACK), ("other cores", others_use + panic, MAIN_STACK),
                            ("IST", exception + panic, OTHER_STACK)):
        print(f"{name + ', panic':18} {use:6} {size:5} (all of it)")
        if use > size:
            complaints.append(f"a panic on the {name} stack needs {use} bytes, more than its {size}")
    if options.paths:
        for address, *more in path_of(worst, deepest(panics)):
            print(f"{worst[(address, *more)][0]:8} {graph.functions[address].name[:100]}")

    shadow, _ = worst_cases(graph, roots, shadow=True)

    def calls(nodes):
        return max(shadow[node][0] for node in nodes)

    trapped = SHADOW_FRAME + 8
    nested = trapped + 8 + calls(interrupts) + trapped
    for name, use, size in (("core 0, shadow", calls(first) + SHADOW_FILL + nested, SHADOW_STACK),
                            ("others, shadow", calls(others) + SHADOW_FILL + nested, SHADOW_STACK),
                            ("NMI, shadow", trapped + 8 + max(calls(nmi) + trapped, calls(freeze)), SHADOW_OF_IST),
                            ("checks, shadow", trapped + 8 + calls(checks) + trapped, SHADOW_OF_IST)):
        with_panic = use + trapped + 8 + calls(panics)
        print(f"{name:18} {use:6} {size // 2:5}    with a panic {with_panic:5} of {size:5}")
        if use > size // 2 or with_panic > size:
            complaints.append(f"the stack \"{name}\" needs {use} bytes, {with_panic} with a panic, of {size}")
    for complaint in complaints:
        print("stack_use.py:", complaint, file=sys.stderr)
    return 1 if complaints else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--paths", action="store_true", help="show the deepest path of each stack")
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--nm", default="nm")
    options = parser.parse_args()
    functions = disassemble(options.image, options.objdump)
    for function in functions.values():
        follow(function)
    graph = Graph(functions, read_vtables(options.image, functions, options.nm))
    sys.exit(report(graph, options))


if __name__ == "__main__":
    main()
