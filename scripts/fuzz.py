#!/usr/bin/env python3
"""Runs the fuzz targets: tests/fuzz/NAME.cpp is the target NAME, tests/fuzz/corpus/NAME.hex its seeds, one a line.

A campaign goes through the targets one after the other and prints what each executed and found. What is new in its
corpus stays in build/fuzz/corpus, a finding in build/fuzz/findings; every run is a line of build/fuzz/campaign.log.
A finding is repeated by: build/fuzz/fuzz_NAME FILE"""

import argparse
import concurrent.futures
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = os.path.join(ROOT, "tests", "fuzz")
SEEDS = os.path.join(SOURCE, "corpus")
BUILD = os.path.join(ROOT, "build", "fuzz")
COVERAGE_BUILD = os.path.join(ROOT, "build", "fuzz-coverage")
LOG = os.path.join(BUILD, "campaign.log")

# Whose line coverage is reported: what reads what strangers wrote.
AREAS = ["kernel/bootinfo", "vmm/config", "vmm/console", "vmm/decode", "vmm/dev", "vmm/loader"]

# Executions in the short run of scripts/test, where the usual number would take longer than some seconds.
SHORT_RUNS = 20000
SHORT_RUNS_OF = {"exits": 1500, "bzimage": 6000, "elf": 6000, "multiboot_guest": 5000, "acpi": 6000, "vga": 6000,
                 "config": 10000, "replay": 1500, "interrupts": 10000, "local_apic": 10000}
# Bytes of input at most. Decisions beyond some hundred rarely lead anywhere new.
MAX_LENGTH = 1024
MAX_LENGTH_OF = {"replay": 8192, "config": 4096, "bzimage": 2048, "elf": 2048, "multiboot_guest": 2048, "acpi": 2048, "decode": 24,
                 "multiboot1": 2048, "multiboot2": 2048, "symbols": 512, "pci": 256, "vga": 256, "uart": 512, "pit": 512,
                 "rtc": 512, "pic": 512, "i8042": 512, "acpi_pm": 512}
# Findings have their stacks; what was allocated where is in the repeated run.
ENVIRONMENT = os.environ | {"ASAN_OPTIONS": "malloc_context_size=0:quarantine_size_mb=4:detect_leaks=0"}


def targets():
    return sorted(os.path.splitext(os.path.basename(path))[0] for path in glob.glob(os.path.join(SOURCE, "*.cpp")))


def build(folder, *options):
    configure = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, "-DBULKHEAD_FUZZ=ON",
                 "-DCMAKE_CXX_COMPILER=clang++-19", *options]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", folder, "--quiet"], check=True)


def folder(*parts):
    path = os.path.join(*parts)
    os.makedirs(path, exist_ok=True)
    return path


def seeds_file(target):
    return os.path.join(SEEDS, target + ".hex")


def seeds_of(target):
    """A folder with a file for each seed, as libFuzzer wants them."""
    path = os.path.join(BUILD, "seeds", target)
    shutil.rmtree(path, ignore_errors=True)
    folder(path)
    if os.path.exists(seeds_file(target)):
        with open(seeds_file(target)) as lines:
            for number, line in enumerate(lines):
                with open(os.path.join(path, str(number)), "wb") as seed:
                    seed.write(bytes.fromhex(line))
    return path


def command(target, *options):
    length = MAX_LENGTH_OF.get(target, MAX_LENGTH)
    return [os.path.join(BUILD, "fuzz_" + target), f"-max_len={length}", "-timeout=100", "-rss_limit_mb=2048",
            "-print_final_stats=1", *options]


def executions_in(output):
    match = re.search(r"stat::number_of_executed_units:\s+(\d+)", output) or re.search(r"Done (\d+) runs", output)
    if match:
        return int(match.group(1))
    counts = re.findall(r"^#(\d+)\s", output, re.MULTILINE)
    return int(counts[-1]) if counts else 0


def short(target):
    """The same executions each time, in seconds."""
    scratch = os.path.join(BUILD, "short", target)
    shutil.rmtree(scratch, ignore_errors=True)
    folder(scratch)
    runs = SHORT_RUNS_OF.get(target, SHORT_RUNS)
    run = subprocess.run(command(target, f"-runs={runs}", "-seed=1", f"-artifact_prefix={folder(BUILD, 'findings')}"
                                 f"/{target}-", scratch, seeds_of(target)), capture_output=True, text=True,
                         env=ENVIRONMENT)
    if run.returncode != 0:
        print(run.stdout + run.stderr)
        return 1
    executed = executions_in(run.stderr)
    if executed < runs:
        print(f"{target}: {executed} executions instead of {runs}")
        return 1
    print(f"{target}: {executed} executions, nothing found")
    return 0


def campaign_run(target, runs, seconds):
    findings = folder(BUILD, "findings")
    before = set(glob.glob(os.path.join(findings, target + "-*")))
    limit = [f"-runs={runs}"] if runs else [f"-max_total_time={seconds}"]
    start = time.monotonic()
    run = subprocess.run(command(target, *limit, "-use_value_profile=1", f"-artifact_prefix={findings}/{target}-",
                                 folder(BUILD, "corpus", target), seeds_of(target)),
                         capture_output=True, text=True, errors="replace", env=ENVIRONMENT)
    took = time.monotonic() - start
    found = sorted(set(glob.glob(os.path.join(findings, target + "-*"))) - before)
    result = {"target": target, "executions": executions_in(run.stderr), "seconds": round(took), "findings": found}
    with open(LOG, "a") as log:
        log.write(json.dumps(result) + "\n")
    if run.returncode != 0 and not found:
        print(run.stderr[-2000:], file=sys.stderr)
    if found:
        why = re.findall(r".*(?:not so:|runtime error:|ERROR: ).*", run.stderr)
        result["why"] = why[0] if why else "?"
    result["failed"] = run.returncode != 0
    return result


def campaign(chosen, runs, seconds, jobs):
    print(f"{'target':16} {'executions':>12} {'per second':>11}  findings", flush=True)
    results = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for done in concurrent.futures.as_completed([pool.submit(campaign_run, t, runs, seconds) for t in chosen]):
            r = done.result()
            results.append(r)
            rate = r["executions"] // max(1, r["seconds"])
            print(f"{r['target']:16} {r['executions']:12,} {rate:11,}  {len(r['findings'])}", flush=True)
            for path in r["findings"]:
                print(f"    {r['why']}\n    {path}", flush=True)
    total = sum(r["executions"] for r in results)
    print(f"{'all':16} {total:12,} {'':11}  {sum(len(r['findings']) for r in results)}")
    return 1 if any(r["failed"] for r in results) else 0


def total():
    """What the log has: executions and findings since it was begun."""
    sums = {}
    with open(LOG) as log:
        for line in log:
            entry = json.loads(line)
            executions, findings = sums.get(entry["target"], (0, 0))
            sums[entry["target"]] = executions + entry["executions"], findings + len(entry["findings"])
    for target, (executions, findings) in sorted(sums.items()):
        print(f"{target:16} {executions:14,}  {findings}")
    print(f"{'all':16} {sum(e for e, _ in sums.values()):14,}  {sum(f for _, f in sums.values())}")
    return 0


def minimise(chosen):
    """The seeds become the fewest files that reach all that seeds and campaigns have reached."""
    for target in chosen:
        new = os.path.join(BUILD, "minimised", target)
        shutil.rmtree(new, ignore_errors=True)
        folder(new)
        subprocess.run(command(target, "-set_cover_merge=1", "-use_counters=0", new, seeds_of(target),
                               folder(BUILD, "corpus", target)), check=True, capture_output=True)
        seeds = []
        for path in glob.glob(os.path.join(new, "*")):
            with open(path, "rb") as file:
                seeds.append(file.read())
        with open(seeds_file(target), "w") as lines:
            lines.writelines(seed.hex() + "\n" for seed in sorted(seeds, key=lambda seed: (len(seed), seed)))
        print(f"{target:16} {len(seeds):5} seeds {sum(map(len, seeds)):8,} bytes", flush=True)
    return 0


def coverage(chosen, minimum):
    build(COVERAGE_BUILD, "-DBULKHEAD_FUZZ_COVERAGE=ON")
    profiles = folder(COVERAGE_BUILD, "profiles")
    programs = []
    for target in chosen:
        program = os.path.join(COVERAGE_BUILD, "fuzz_" + target)
        programs.append(program)
        subprocess.run([program, "-runs=0", seeds_of(target), folder(BUILD, "corpus", target)], check=True,
                       capture_output=True,
                       env=os.environ | {"LLVM_PROFILE_FILE": os.path.join(profiles, target + ".profraw")})
    merged = os.path.join(profiles, "all.profdata")
    subprocess.run(["llvm-profdata-19", "merge", "-sparse", "-o", merged,
                    *[os.path.join(profiles, target + ".profraw") for target in chosen]], check=True)
    objects = [word for program in programs[1:] for word in ("-object", program)]
    export = subprocess.run(["llvm-cov-19", "export", "-summary-only", "-instr-profile", merged, programs[0], *objects,
                             *[os.path.join(ROOT, area) for area in AREAS]],
                            check=True, capture_output=True, text=True)
    below = []
    sums = {area: [0, 0] for area in AREAS}
    for file in json.loads(export.stdout)["data"][0]["files"]:
        name = os.path.relpath(file["filename"], ROOT)
        area = os.path.dirname(name)
        if area not in sums:
            continue
        lines = file["summary"]["lines"]
        sums[area][0] += lines["covered"]
        sums[area][1] += lines["count"]
        if lines["count"] != 0 and lines["covered"] / lines["count"] < 0.9:
            below.append((name, lines["covered"], lines["count"]))
    for area, (covered, count) in sums.items():
        print(f"{area:20} {covered:6} of {count:6} lines {100 * covered / max(1, count):6.1f} %")
    for name, covered, count in sorted(below):
        print(f"    {name}: {covered} of {count}")
    return 1 if any(count and 100 * covered / count < minimum for covered, count in sums.values()) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=targets(), help="only this one; may be repeated")
    parser.add_argument("--runs", type=int, help="executions of each target")
    parser.add_argument("--seconds", type=int, default=60, help="time for each target, without --runs (60)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (2)")
    parser.add_argument("--short", action="store_true", help="the short run of scripts/test; builds nothing")
    parser.add_argument("--build-only", action="store_true", help="build and stop")
    parser.add_argument("--total", action="store_true", help="add up the log of campaigns")
    parser.add_argument("--minimise", action="store_true", help="make the seeds anew from all that was found")
    parser.add_argument("--coverage", action="store_true", help="lines that seeds and corpus execute, by folder")
    parser.add_argument("--minimum", type=float, default=0, help="with --coverage: fail below this percentage")
    options = parser.parse_args()
    chosen = options.target or targets()
    if options.short:
        return max(short(target) for target in chosen)
    if options.total:
        return total()
    build(BUILD)
    if options.build_only:
        return 0
    if options.minimise:
        return minimise(chosen)
    if options.coverage:
        return coverage(chosen, options.minimum)
    return campaign(chosen, options.runs, options.seconds, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
