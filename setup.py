"""The compiled extensions. All metadata is in pyproject.toml.

KIROSTREAM_REQUIRE_EXT=1 turns a failed compilation into a failed build. Without it a machine that has no C
compiler gets the pure-Python twins, which say so (`kirostream version`, the start-up line).
KIROSTREAM_CFLAGS adds compiler and linker flags, e.g. for a sanitizer (see CONTRIBUTING.md).
"""

import os
import shlex
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

flags = shlex.split(os.environ.get("KIROSTREAM_CFLAGS", ""))


def extension(path: str, *depends: str) -> Extension:
    return Extension(
        path.replace("/", "."),
        [f"{path}.pyx"],
        depends=list(depends),
        extra_compile_args=["-O3", *flags],
        extra_link_args=flags,
        optional=os.environ.get("KIROSTREAM_REQUIRE_EXT") != "1",
    )


extensions = [
    extension("kirostream/_evstream", "kirostream/_crc32.h", "kirostream/_runs.h"),
    extension("kirostream/_scan", "kirostream/_json.h", "kirostream/_digest.h"),
]
if sys.platform != "win32":  # there, a socket is no file
    extensions += [
        extension("kirostream/net/_quick"),
        extension("kirostream/net/_wire", "kirostream/_runs.h", "kirostream/net/_quick.pxd"),
    ]

setup(ext_modules=cythonize(extensions, language_level=3))
