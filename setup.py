"""The one compiled extension. All metadata is in pyproject.toml.

KIROSTREAM_REQUIRE_EXT=1 turns a failed compilation into a failed build. Without it a machine that has no C
compiler gets the pure-Python twin, which says so (`kirostream version`, the start-up line).
KIROSTREAM_CFLAGS adds compiler and linker flags, e.g. for a sanitizer (see CONTRIBUTING.md).
"""

import os
import shlex

from Cython.Build import cythonize
from setuptools import Extension, setup

flags = shlex.split(os.environ.get("KIROSTREAM_CFLAGS", ""))
evstream = Extension(
    "kirostream._evstream",
    ["kirostream/_evstream.pyx"],
    depends=["kirostream/_crc32.h"],
    extra_compile_args=["-O3", *flags],
    extra_link_args=flags,
    optional=os.environ.get("KIROSTREAM_REQUIRE_EXT") != "1",
)

setup(ext_modules=cythonize([evstream], language_level=3))
