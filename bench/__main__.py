"""``python -m bench SUITE [options]``: run a suite, or `all`, print tables, keep the numbers in ``bench/results``."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

from bench import (
    codec,
    convert,
    counting,
    endtoend,
    fanout,
    gateways,
    guard,
    ledger,
    memory,
    page,
    pool,
    recorder,
    start,
    upstream,
)

# A suite is a module with `configure(parser)` and `run(options) -> int` (the exit status); its docstring's first line
# is its help.
SUITES: dict[str, ModuleType] = {
    "gateways": gateways,
    "codec": codec,
    "convert": convert,
    "counting": counting,
    "endtoend": endtoend,
    "fanout": fanout,
    "ledger": ledger,
    "memory": memory,
    "pool": pool,
    "recorder": recorder,
    "start": start,
    "upstream": upstream,
    "guard": guard,
}
ALL, PAGE = "all", "docs"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    suites = parser.add_subparsers(dest="suite", metavar="SUITE", required=True)
    suites.add_parser(ALL, help="all of them; each takes those of the options that it knows, such as --quick")
    page.configure(suites.add_parser(PAGE, help="docs/benchmarks.md and its charts, from the newest results"))
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, suite in SUITES.items():
        what = (suite.__doc__ or "").partition("\n")[0]
        parsers[name] = suites.add_parser(name, help=what, description=suite.__doc__)
        suite.configure(parsers[name])
    options, rest = parser.parse_known_args(words)
    if options.suite == PAGE:
        return page.run(parser.parse_args(words))
    if options.suite != ALL:
        status: int = SUITES[options.suite].run(parser.parse_args(words))
        return status
    if "--quick" in rest:
        rest.append("--no-save")  # what measures little is not kept
    chosen = {name: each.parse_known_args(rest) for name, each in parsers.items()}
    if unknown := set.intersection(*(set(unread) for _, unread in chosen.values())):
        parser.error(f"no suite knows {' '.join(sorted(unknown))}")
    worst = 0
    for name, (taken, _) in chosen.items():
        if name == "guard" and "--quick" in rest:
            continue  # CI runs it, and it is no quicker
        print(f"\n=== {name}", flush=True)
        worst = max(worst, SUITES[name].run(taken))
    return worst


if __name__ == "__main__":
    sys.exit(main())
