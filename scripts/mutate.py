#!/usr/bin/env python3
"""Deletes single checks and looks whether the tests notice.

tests/mutations/*.toml lists the deletions. Each replaces one piece of one file and names the tests that ought to fail
then, the cheapest first: names of CTest. They are applied one at a time to a copy of the tree in build/mutations, never
to the tree itself; the first test that fails has caught the deletion. Before a test is asked for the first time it must
pass without any. With ccache most of the time is the mutated files' own.

    [[mutation]]
    name    = "bus: an access may run past the end of a region"
    file    = "vmm/dev/bus.cpp"
    find    = "size > region->length - (address - region->base)"    # must occur exactly once ...
    count   = 2                                                     # ... or as often as this says
    replace = "false"
    tests   = ["unit.vmm_dev", "fuzz.uart"]

Exit code 1: fewer were caught than --minimum asks for. 2: an error of the list or of the build, each named."""

import argparse
import concurrent.futures
import glob
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LISTS = os.path.join(ROOT, "tests", "mutations")
WORK = os.path.join(ROOT, "build", "mutations")
# A deleted check may well make a test run for ever.
LONGEST = {"unit": 300, "fuzz": 300, "system": 900}
KEYS = {"name", "file", "find", "count", "replace", "tests"}


class Broken(Exception):
    """The list or the tree is wrong: nothing is learnt about the tests."""


# --- The list


def load():
    mutations = []
    for path in sorted(glob.glob(os.path.join(LISTS, "*.toml"))):
        with open(path, "rb") as file:
            for entry in tomllib.load(file).get("mutation", []):
                entry["list"] = os.path.relpath(path, ROOT)
                mutations.append(entry)
    return mutations


def problems(mutations):
    """What is wrong with the list, and with anchors that no longer fit the source; a line each."""
    lines, names = [], set()
    for entry in mutations:
        where = f"{entry['list']}: \"{entry.get('name', '?')}\""
        unknown = set(entry) - KEYS - {"list"}
        missing = KEYS - {"count"} - set(entry)
        if unknown or missing:
            lines.append(f"{where}: {', '.join(sorted(unknown | missing))} unknown or missing")
            continue
        if entry["name"] in names:
            lines.append(f"{where}: the name is taken")
        names.add(entry["name"])
        path = os.path.join(ROOT, entry["file"])
        if not os.path.exists(path):
            lines.append(f"{where}: there is no {entry['file']}")
            continue
        with open(path) as file:
            found = file.read().count(entry["find"])
        if found != entry.get("count", 1):
            lines.append(f"{where}: its text occurs {found} times in {entry['file']}, not {entry.get('count', 1)}")
        if entry["find"] == entry["replace"]:
            lines.append(f"{where}: it replaces nothing")
        if not entry["tests"]:
            lines.append(f"{where}: it names no test")
    return lines


# --- Copies of the tree


class Tree:
    """A copy of the tree with builds of its own."""

    def __init__(self, number):
        self.path = os.path.join(WORK, f"tree{number}")
        self.build = os.path.join(self.path, "build")
        self.fuzz_build = os.path.join(self.build, "fuzz")
        self.commands = {}  # of a test: words, environment
        self.trusted = set()  # tests that pass without a deletion
        os.makedirs(self.build, exist_ok=True)
        self.copy()
        self.configure()

    def copy(self):
        """Only what differs is written, so that only that is built anew."""
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                                check=True, capture_output=True).stdout.split(b"\0")
        wanted = {name.decode() for name in listed if name}
        wanted = {name for name in wanted if os.path.isfile(os.path.join(ROOT, name))}
        for name in wanted:
            self.take(name)
        for folder, folders, files in os.walk(self.path):
            if folder == self.path and "build" in folders:
                folders.remove("build")
            for name in files:
                full = os.path.join(folder, name)
                if os.path.relpath(full, self.path) not in wanted and not name.endswith(".pyc"):
                    os.remove(full)
        guests = os.path.join(ROOT, "build", "guests")
        if os.path.isdir(guests):
            shutil.copytree(guests, os.path.join(self.build, "guests"), dirs_exist_ok=True)

    def take(self, name):
        with open(os.path.join(ROOT, name), "rb") as file:
            content = file.read()
        to = os.path.join(self.path, name)
        if os.path.exists(to):
            with open(to, "rb") as file:
                if file.read() == content:
                    return
        os.makedirs(os.path.dirname(to), exist_ok=True)
        with open(to, "wb") as file:
            file.write(content)
        shutil.copymode(os.path.join(ROOT, name), to)

    def configure(self):
        options = ["-DBULKHEAD_WERROR=OFF"]
        if shutil.which("ccache"):
            # A header compiled once is nothing that a compiler cache can keep.
            options += ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache", "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON"]
        common = ["cmake", "-G", "Ninja", "-S", self.path, *options]
        for words in ([*common, "-B", self.build],
                      [*common, "-B", self.fuzz_build, "-DBULKHEAD_FUZZ=ON", "-DCMAKE_CXX_COMPILER=clang++-19"]):
            run = subprocess.run(words, capture_output=True, text=True)
            if run.returncode != 0:
                raise Broken(f"cmake failed in {self.path}:\n{run.stdout}{run.stderr}")
        shown = subprocess.run(["ctest", "--test-dir", self.build, "--show-only=json-v1"], check=True,
                               capture_output=True, text=True)
        for test in json.loads(shown.stdout)["tests"]:
            properties = {p["name"]: p["value"] for p in test.get("properties", [])}
            self.commands[test["name"]] = (test.get("command"),
                                           dict(pair.split("=", 1) for pair in properties.get("ENVIRONMENT", [])))

    def ninja(self, *words):
        run = subprocess.run(["ninja", "-C", *words], capture_output=True, text=True)
        if run.returncode != 0:
            raise Broken(f"the build failed:\n{run.stdout[-3000:]}")

    def prepare(self, test):
        """Builds what the test runs; returns its command and environment."""
        kind, _, name = test.partition(".")
        if test not in self.commands:
            raise Broken(f"there is no test {test}")
        command, environment = self.commands[test]
        if kind == "unit":
            self.ninja(self.build, f"unit_{name}")
            command = [os.path.join(self.build, f"unit_{name}"), "--abort"]
        elif kind == "fuzz":
            self.ninja(self.fuzz_build, f"fuzz_{name}")
        else:
            self.ninja(self.build, "bulkhead.elf", "test_guests")
        return command, environment

    def passes(self, test):
        """None, or what the test said when it failed."""
        command, environment = self.prepare(test)
        limit = LONGEST.get(test.partition(".")[0], 300)
        process = subprocess.Popen(command, cwd=self.build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", env=os.environ | environment, start_new_session=True)
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            # It is asked first, so that a system test can end its emulator.
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.communicate()
            return f"no end within {limit} s"
        return None if process.returncode == 0 else reason_of(output)

    def judge(self, mutation):
        """The test that caught it and what it said, or None."""
        path = os.path.join(self.path, mutation["file"])
        with open(path) as file:
            text = file.read()
        for test in mutation["tests"]:
            if test not in self.trusted:
                if said := self.passes(test):
                    raise Broken(f"{test} fails without any deletion: {said}")
                self.trusted.add(test)
            with open(path, "w") as file:
                file.write(text.replace(mutation["find"], mutation["replace"]))
            try:
                said = self.passes(test)
            finally:
                with open(path, "w") as file:
                    file.write(text)
            if said is not None:
                return test, said
        return None


def reason_of(output):
    for pattern in (r"not so: .*", r"runtime error: .*", r"ERROR: AddressSanitizer: \S+", r"ERROR: libFuzzer: .*"):
        if match := re.search(pattern, output):
            return match.group(0)[:120]
    # Catch2: the failing case stands between two lines of dashes.
    if match := re.search(r"^-{70,}\n(.+(?:\n.+)*?)\n-{70,}$", output, re.MULTILINE):
        return match.group(1).splitlines()[0][:120]
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:120] if lines else "it failed and said nothing"


# --- Runs


def all_of(trees, jobs, work):
    """work(tree, job) for every job, each tree doing one at a time; yields (job, result or Broken)."""
    free = queue.Queue()
    for tree in trees:
        free.put(tree)

    def one(job):
        tree = free.get()
        try:
            return job, work(tree, job)
        except Broken as broken:
            return job, broken
        finally:
            free.put(tree)

    with concurrent.futures.ThreadPoolExecutor(len(trees)) as pool:
        futures = [pool.submit(one, job) for job in jobs]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def run(mutations, options):
    trees = [Tree(number) for number in range(options.jobs)]
    caught, survived, errors, by = [], [], [], {}
    for mutation, result in all_of(trees, mutations, lambda tree, mutation: tree.judge(mutation)):
        name = mutation["name"]
        if isinstance(result, Broken):
            errors.append(f"{mutation['list']}: \"{name}\": {result}")
            print(f"ERROR     {name}", flush=True)
            continue
        if result is None:
            survived.append(name)
            print(f"SURVIVED  {name}", flush=True)
        else:
            caught.append(name)
            kind = result[0].partition(".")[0]
            by[kind] = by.get(kind, 0) + 1
            print(f"caught    {name}\n          by {result[0]}: {result[1]}", flush=True)

    judged = len(caught) + len(survived)
    print(f"\n{judged} deletions: {len(caught)} caught ({100 * len(caught) / max(1, judged):.1f} %: "
          + ", ".join(f"{count} by {kind} tests" for kind, count in sorted(by.items())) + f"), {len(survived)} survived")
    for name in survived:
        print(f"    survived: {name}")
    if errors:
        raise Broken("\n".join(errors))
    return 0 if 100 * len(caught) >= options.minimum * judged else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", action="append", default=[],
                        help="those with TEXT in their name or file; may be repeated")
    parser.add_argument("--part", metavar="I/N", help="the I-th of N parts of the list, from 1")
    parser.add_argument("--jobs", type=int, default=1, help="copies of the tree, each at work (1)")
    parser.add_argument("--minimum", type=float, default=95, help="per cent to be caught (95)")
    parser.add_argument("--no-system", action="store_true",
                        help="without the emulators: deletions that only they can show are left out")
    parser.add_argument("--anchors", action="store_true", help="check that the list fits the source, and stop")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args()
    mutations = load()
    try:
        if wrong := problems(mutations):
            raise Broken("\n".join(wrong))
        if options.anchors:
            print(f"{len(mutations)} deletions fit the source")
            return 0
        if options.only:
            mutations = [m for m in mutations if any(text in m["name"] or text in m["file"] for text in options.only)]
        if options.no_system:
            for mutation in mutations:
                mutation["tests"] = [t for t in mutation["tests"] if not t.startswith("system.")]
            mutations = [m for m in mutations if m["tests"]]
        if options.part:
            part, parts = map(int, options.part.split("/"))
            mutations = [m for i, m in enumerate(mutations) if i * parts // len(mutations) == part - 1]
        if not mutations:
            raise Broken("no deletion is left to try")
        if options.list:
            for mutation in mutations:
                print(f"{mutation['name']:80} {mutation['file']}")
            return 0
        return run(mutations, options)
    except Broken as broken:
        print(f"scripts/mutate: {broken}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
