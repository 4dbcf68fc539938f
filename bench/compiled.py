"""The programs of ``bench/c``, compiled with the system's C compiler when they are first needed.

What measures has to be quicker than what is measured: the upstream, the floor (a relay) and the clients are C. They are
kept in ``$XDG_CACHE_HOME/kirostream-bench``, under a name made of their source, so that a change compiles them anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "c"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")


class NotCompiled(Exception):
    """There is no program: the message says what is missing."""


def compiler() -> str | None:
    """The C compiler: ``$CC``, ``cc``, ``gcc`` or ``clang``."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


def program(name: str, *, tls: bool = False) -> Path:
    """The path of ``relay``, ``upstream`` or ``load``.

    Args:
        tls: with OpenSSL, whose headers have to be there.

    Raises:
        NotCompiled: no Linux, no compiler, or it refused.
    """
    if sys.platform != "linux":
        raise NotCompiled("the compiled programs of the bench need Linux: epoll, and the CPU clocks of processes")
    if tls:
        return _compiled(name, ("-DWITH_TLS",), ("-lssl", "-lcrypto"), "OpenSSL's headers (libssl-dev) are needed")
    return _compiled(name, (), (), "the compiler refused")


def library(name: str) -> Path:
    """The path of a shared library: ``counting``, which needs valgrind's headers.

    Raises:
        NotCompiled: no compiler, or it refused.
    """
    return _compiled(name, ("-shared", "-fPIC"), (), "valgrind's headers are needed")


@cache
def _compiled(name: str, flags: tuple[str, ...], libraries: tuple[str, ...], without: str) -> Path:
    cc = compiler()
    if cc is None:
        raise NotCompiled("the bench needs a C compiler: install gcc or clang, or set CC")
    source = SOURCES / f"{name}.c"
    command = [cc, *FLAGS, *flags, str(source), *libraries]
    said = b"".join(path.read_bytes() for path in (source, SOURCES / "common.h"))
    path = cache_folder() / f"{name}-{hashlib.sha256(said + ' '.join(command).encode()).hexdigest()[:16]}"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / name
            done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotCompiled(f"{source.name}: {without}\n{done.stderr[-1500:]}")
            made.replace(path)
    return path


def cache_folder() -> Path:
    """Where the programs are kept; made if need be, for its owner alone."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "kirostream-bench"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
