"""The compiled extensions. All metadata is in pyproject.toml.

KIROSTREAM_REQUIRE_EXT=1 turns a failed compilation into a failed build. Without it a machine that has no C
compiler gets the pure-Python twins, which say so (`kirostream version`, the start-up line).
KIROSTREAM_CFLAGS adds compiler and linker flags, e.g. for a sanitizer (see CONTRIBUTING.md).
"""

import os
import shlex

from Cython.Build import cythonize
from setuptools import Extension, setup

flags = shlex.split(os.environ.get("KIROSTREAM_CFLAGS", ""))


def extension(name: str, header: str) -> Extension:
    return Extension(
        f"kirostream.{name}",
        [f"kirostream/{name}.pyx"],
        depends=[f"kirostream/{header}"],
        extra_compile_args=["-O3", *flags],
        extra_link_args=flags,
        optional=os.environ.get("KIROSTREAM_REQUIRE_EXT") != "1",
    )


extensions = [extension("_evstream", "_crc32.h"), extension("_scan", "_json.h")]

setup(ext_modules=cythonize(extensions, language_level=3))
