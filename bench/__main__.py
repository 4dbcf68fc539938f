"""``python -m bench SUITE [options]``: run a suite, print its table, keep its numbers in ``bench/results``."""

from __future__ import annotations

import argparse
import sys

from bench import codec, endtoend

# A suite is a module with `configure(parser)` and `run(options) -> int` (the exit status); its docstring's first line
# is its help.
SUITES = {
    "codec": codec,
    "endtoend": endtoend,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    suites = parser.add_subparsers(dest="suite", required=True, metavar="SUITE")
    for name, suite in SUITES.items():
        what = (suite.__doc__ or "").partition("\n")[0]
        suite.configure(suites.add_parser(name, help=what, description=suite.__doc__))
    options = parser.parse_args()
    status: int = SUITES[options.suite].run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
