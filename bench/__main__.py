"""``python -m bench [SUITE [options]]``: run a suite, or all, print tables, keep the numbers in ``bench/results``."""

from __future__ import annotations

import argparse
import sys

from bench import codec, convert, counting, endtoend, fanout, gateways, ledger, pool, upstream

# A suite is a module with `configure(parser)` and `run(options) -> int` (the exit status); its docstring's first line
# is its help.
SUITES = {
    "codec": codec,
    "convert": convert,
    "counting": counting,
    "endtoend": endtoend,
    "fanout": fanout,
    "gateways": gateways,
    "ledger": ledger,
    "pool": pool,
    "upstream": upstream,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    suites = parser.add_subparsers(dest="suite", metavar="SUITE", help="none: all of them, with their defaults")
    for name, suite in SUITES.items():
        what = (suite.__doc__ or "").partition("\n")[0]
        suite.configure(suites.add_parser(name, help=what, description=suite.__doc__))
    first = parser.parse_args()
    chosen = [first] if first.suite else [parser.parse_args([name]) for name in SUITES]
    statuses: list[int] = [SUITES[options.suite].run(options) for options in chosen]
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
