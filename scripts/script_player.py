"""Plays a script of what to type and what to wait for, in place of a person."""

import re

HELP = """\
A script has one step a line; blank lines and lines that start with # do nothing.
  expect TEXT     wait until TEXT appears in the output after what was matched before
  match REGEX     the same with a Python regular expression
  send TEXT       type TEXT and press Return
  type TEXT       type TEXT; \\r, \\n, \\t, \\e and \\xHH are understood
  timeout N       from here on, give up waiting after N seconds (300 at first)
  end             wait until the machine powers off or reboots
"""


class ScriptError(Exception):
    pass


def unescape(text):
    def character(match):
        code = match.group(1)
        if code[0] == "x":
            return chr(int(code[1:], 16))
        return {"r": "\r", "n": "\n", "t": "\t", "e": "\x1b", "\\": "\\"}[code]

    return re.sub(r"\\(x[0-9a-fA-F]{2}|[rnte\\])", character, text)


def parse(text, name):
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        verb, _, argument = line.partition(" ")
        if verb not in ("expect", "match", "send", "type", "timeout", "end"):
            raise ScriptError(f"{name}:{number}: unknown step {verb!r}\n{HELP}")
        if verb == "timeout" and not argument.isdigit():
            raise ScriptError(f"{name}:{number}: timeout wants a number of seconds, not {argument!r}")
        if verb == "match":
            try:
                re.compile(argument)
            except re.error as error:
                raise ScriptError(f"{name}:{number}: {error}") from None
        steps.append((number, verb, argument))
    return steps


def play(machine, steps):
    timeout = 300
    for _, verb, argument in steps:
        if verb == "expect":
            machine.expect(re.escape(argument), timeout)
        elif verb == "match":
            machine.expect(argument, timeout)
        elif verb == "send":
            machine.send(argument + "\r")
        elif verb == "type":
            machine.send(unescape(argument).encode("latin-1"))
        elif verb == "timeout":
            timeout = int(argument)
        elif verb == "end":
            machine.wait_end(timeout)
