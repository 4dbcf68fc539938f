"""Instructions of the codec, a canned turn and a request, beside those of the committed baseline.

Time on a shared machine is noise, the number of instructions is not. callgrind counts those of `bench/guard_work.py`:
with the same build of everything two runs differ by less than a thousandth, so 5 % more than in ``bench/guard.json``
is a change of ours, and fails. With another interpreter, compiler or processor than the baseline's, counts are held
against that of a loop which is not ours, in the same run, and the bound is wider; it says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import compiled, report
from bench.guard_work import REFERENCE
from bench.processes import ROOT
from kirostream.evstream import CORE

BASELINE = Path(__file__).parent / "guard.json"
BOUND = 0.05
BOUND_ELSEWHERE = 0.25
"""Where the baseline was made with other versions: an interpreter's own work is not a constant share of ours."""
PATIENCE = 580.0


class CannotCount(Exception):
    """There is nothing to count with. The message says what is missing."""


class Failed(Exception):
    """It was counted, and something went wrong."""


@dataclass(frozen=True, slots=True)
class Row:
    """A piece of work: instructions a unit now and in the baseline (None: it has none), and the share of it."""

    name: str
    now: float
    then: float | None
    share: float | None

    def is_over(self, bound: float) -> bool:
        return self.share is not None and self.share > 1 + bound

    def is_under(self, bound: float) -> bool:
        return self.share is not None and self.share < 1 - bound


def count(options: argparse.Namespace) -> dict[str, float]:
    """Instructions a unit of each piece of work.

    Raises:
        CannotCount: no valgrind, or not its headers.
        Failed: what is counted does not work, or took too long.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotCount("valgrind is not installed")
    try:
        compiled.library("counting")
    except compiled.NotCompiled as error:
        raise CannotCount(str(error)) from None
    # Addresses and hashes decide what collides and what is aligned: both are the same each time.
    fixed = [shutil.which("setarch") or "", platform.machine(), "-R"]
    with tempfile.TemporaryDirectory(prefix="kirostream-guard-") as folder:
        out = Path(folder) / "counted"
        command = [*(fixed if fixed[0] else []), valgrind, "--tool=callgrind", "--instr-atstart=no"]
        command += [f"--callgrind-out-file={out}", "--log-file=/dev/null", sys.executable, "-m", "bench.guard_work"]
        env = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME", "CC") if name in os.environ}
        env.update(PYTHONHASHSEED="0", PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1", LC_ALL="C.UTF-8")
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"it took longer than {PATIENCE:g} s") from None
        if done.returncode:
            raise Failed(f"the work failed:\n{(done.stdout + done.stderr)[-2000:]}")
        units = dict(json.loads(line) for line in done.stdout.splitlines())
        totals = dict(_dumps(Path(folder)))
    if missing := [name for name in units if name not in totals]:
        raise Failed(f"callgrind has no count of {', '.join(missing)}")
    return {name: totals[name] / number for name, number in units.items()}


def _dumps(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and instructions of each dump."""
    for file in folder.iterdir():
        text = file.read_text(errors="replace")
        name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
        total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
        if name and total:
            yield name[1], int(total[1])


def versions() -> dict[str, str]:
    """Whatever decides how many instructions the same work takes."""
    valgrind = shutil.which("valgrind") or "valgrind"
    said = subprocess.run([valgrind, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    compiler = subprocess.run(
        [compiled.compiler() or "cc", "-dumpfullversion"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "valgrind": said,
        "compiler": compiler,
        "libc": " ".join(platform.libc_ver()),
        "machine": f"{platform.machine()} {' '.join(_features())}",
        "core": CORE,
        **report.versions(["Cython", "msgspec", "trio"]),
    }


def _features() -> list[str]:
    """Instructions that libraries choose their code by."""
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return []
    return [name for name in ("avx2", "bmi2", "erms", "fsrm", "pclmulqdq") if name in flags]


def compare(now: Mapping[str, float], baseline: Mapping[str, Any], *, same: bool) -> list[Row]:
    """Each piece of work beside the baseline.

    Args:
        same: the versions are the baseline's; else each count is taken as a multiple of the reference's.
    """
    then = baseline["instructions"]
    scale = 1.0 if same else then[REFERENCE] / now[REFERENCE]
    return [
        Row(name, found, then.get(name), found * scale / then[name] if name in then else None)
        for name, found in now.items()
    ]


def table(rows: Sequence[Row], bound: float) -> Table:
    out = Table(title="instructions", title_justify="left")
    for heading in ("", "a unit", "baseline", "share", ""):
        out.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        then, share = (
            ("-", "-") if row.then is None or row.share is None else (f"{row.then:,.1f}", f"{100 * row.share:.1f} %")
        )
        judged = "MORE" if row.is_over(bound) else "less" if row.is_under(bound) else ""
        out.add_row(row.name, f"{row.now:,.1f}", then, share, judged)
    return out


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--update", action="store_true", help="write what was counted as the new baseline")
    add("--json", type=Path, metavar="PATH", help="write the counts there")
    add("--baseline", type=Path, metavar="PATH", default=BASELINE, help="another baseline")


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        now = count(options)
    except CannotCount as error:
        console.print(f"The guard cannot count here: {error}", style="yellow", markup=False)
        return 0
    except Failed as error:
        Console(stderr=True, soft_wrap=True, markup=False).print(f"guard failed: {error}", style="bold red")
        return 1
    here = versions()
    found = {"versions": here, "instructions": {name: round(value, 1) for name, value in now.items()}}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.update:
        options.baseline.write_text(json.dumps(found, indent=1) + "\n")
        console.print(f"written: {options.baseline}", soft_wrap=True)
        return 0
    baseline = json.loads(options.baseline.read_text())
    differing = {
        name: (value, baseline["versions"].get(name))
        for name, value in here.items()
        if value != baseline["versions"].get(name)
    }
    for name, (this, that) in differing.items():
        console.print(f"{name} is {this} here, and was {that}", style="yellow", markup=False)
    bound = BOUND_ELSEWHERE if differing else BOUND
    if differing:
        console.print(f"So counts are compared as multiples of a loop that is not ours; the bound is {bound:.0%}.")
    rows = compare(now, baseline, same=not differing)
    console.print(table(rows, bound))
    if over := [row.name for row in rows if row.is_over(bound)]:
        console.print(
            f"More instructions than the baseline by over {bound:.0%}: {'; '.join(over)}. If that is meant, "
            "`python -m bench guard --update` writes a new baseline.",
            style="bold red",
        )
        return 1
    if any(row.is_under(bound) for row in rows):
        console.print("Less than the baseline: `python -m bench guard --update` keeps it so.")
    if missing := set(baseline["instructions"]) - set(now):
        console.print(f"The baseline has more: {', '.join(sorted(missing))}")
        return 1
    return 0
