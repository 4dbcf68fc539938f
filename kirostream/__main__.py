"""`python -m kirostream`."""

from kirostream.cli import main

main()
