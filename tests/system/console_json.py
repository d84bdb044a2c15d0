#!/usr/bin/env python3
"""Every command of the console with --json on a live machine: one document each, parsed. And what only a live console
shows: commands that go on until a key is pressed, keys sent to a guest, merged logs, a config typed at the prompt.
usage: console_json.py MACHINE"""

import json
import re
import tempfile

import support
from support import System, check

CONFIG = """\
[vm.echo]
kernel = "echo"
memory.max = "16M"

[vm.spare]
kernel = "echo"
memory.max = "16M"
autostart = false

[vm.second]
kernel = "echo"
memory.max = "16M"
console = "com2"
"""

SNIPPET = """\
[vm.typed]
kernel = "echo"
memory.max = "16M"
autostart = false
"""

# What a command is given; of those that are not here, nothing.
ARGUMENTS = {
    "info": "echo", "create": "spare.toml", "start": "spare", "pause": "echo", "unpause": "echo", "reset": "echo",
    "shutdown": "echo", "destroy": "spare", "rename": "spare spare2", "set": "echo cpu.weight 200",
    "scrollback": "echo 5", "logs": "--last 3", "screen": "echo", "send": "echo x", "vcpu-pin": "echo 0 0",
    "regs": "echo", "x": "echo 0x100000 4 --unit 4 --physical", "exits": "echo --diff", "top": "1",
    "repeat": "2 version; clock", "wait": "1", "help": "list",
}
# They end the machine; console.py does that.
NOT_HERE = {"reboot", "poweroff"}
# What the guest or machine may have no answer to; the document then says so.
MAY_FAIL = {"shutdown", "screen"}


def one_document(system, line):
    text = system.command(line)
    document, _, rest = text.partition("\n")
    # What becomes of VMs is announced to the operator in lines of their own.
    if not re.fullmatch(r"(VM \S+ [^\n]*\n)*", rest):
        raise AssertionError(f"{line} prints more than a document: {text!r}")
    try:
        return json.loads(document)
    except json.JSONDecodeError as error:
        raise AssertionError(f"{line}: {error}: {text!r}") from error


def every_command(system):
    rows = one_document(system, "help --json")
    tried = 0
    for row in rows:
        name = row["command"]
        if not row["json"] or name in NOT_HERE:
            continue
        if name == "exits":
            check({"rates", "last", "host_caused"} <= one_document(system, "exits echo --budget --json").keys(),
                  "exits --budget has rates and the last exits")
        answer = one_document(system, f"{name} --json {ARGUMENTS.get(name, '')}")
        error = answer.get("error") if isinstance(answer, dict) else None
        if error is not None and name not in MAY_FAIL:
            raise AssertionError(f"{name} fails: {error}")
        tried += 1
    check(tried >= 28, f"each of {tried} commands prints one JSON document")
    for line in ("info nobody", "start", "x echo", "frobnicate", "list --frob", "console echo", "dmesg -f"):
        if "error" not in one_document(system, line + " --json"):
            raise AssertionError(f"{line} --json does not fail")
    print("ok: errors are documents too", flush=True)


def live(system):
    for line, shown in (("top 1", r"NAME +ID +MEMORY VCPUS STATE"), ("dmesg -f", r"VM echo started"),
                        ("logs -f", r"\] echo: echo: ready")):
        system.machine.send(line + "\r")
        system.expect(shown)
        system.machine.send("q")
        system.prompt()
        print(f"ok: {line} shows and ends", flush=True)
    logs = system.command("logs")
    check(re.search(r"^\[ *\d+\.\d{6}\] echo: echo: ready$", logs, re.MULTILINE) is not None,
          "logs has the line with its time and VM")
    system.command("send echo 'typed here'")
    system.wait_until(lambda: "typed here" in system.command("scrollback echo 3"), "what send types comes back")
    system.machine.send("repeat 1000000 version\r")
    system.expect("repeat 1000000 version")
    system.machine.send("\x03")
    system.prompt()
    check("3 of 3 runs in" in system.command("repeat 3 pause echo; unpause echo"), "repeat repeats; Ctrl-C ends it")
    system.machine.send("create\r[vm.typed]\r")
    system.expect("config> ")
    system.machine.send("\x03")
    system.prompt()
    print("ok: a config that is typed can be dropped", flush=True)
    system.machine.send("create\r")
    for line in ("[vm.by-hand]", 'kernel = "echo"', 'memory.max = "4M"', "."):
        system.expect("config> ")
        system.machine.send(line + "\r")
    system.prompt()
    system.wait_until(lambda: "by-hand: echo: ready" in system.command("logs"), "a config that is typed starts a VM")
    check("echo: ready" in open(system.machine.path("com2")).read(), "a VM's console can be another serial port")


def test(machine):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as snippet:
        snippet.write(SNIPPET)
        snippet.flush()
        modules = [(support.guest("echo"), "echo"), (snippet.name, "spare.toml")]
        with System(machine, modules, CONFIG, memory=192, com2=True, **support.real_time(machine)) as system:
            system.prompt()
            every_command(system)
            live(system)


if __name__ == "__main__":
    support.main(test)
