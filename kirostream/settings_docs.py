"""docs/settings.md, made of what the settings say of themselves. A test holds the page to this."""

from __future__ import annotations

from typing import Final

from kirostream.settings import LEGACY, Leaf, leaves, plain
from kirostream.stores.toml_text import literal

HEAD: Final = """\
# Settings

This page is made by `kirostream settings docs`.

A setting stands in `kirostream.toml`, in the configuration folder of the platform (`kirostream settings check` says
where; `--config` and `KIROSTREAM_CONFIG_DIR` name another one), or in a variable of the environment. The command line
wins over the environment, and that over the file. A dotted name is a section and a key of the file, and the variable
has it in capitals:

```toml
[relay.deadlines]
idle = 300
```

```sh
KIROSTREAM_RELAY_DEADLINES_IDLE=300
```

```sh
kirostream settings show relay          # what is set, and where it comes from
kirostream settings explain server.port # what it does
kirostream settings set log.level debug # writes the file; its comments stay
kirostream settings check               # everything that cannot be used, with its line
```

**Live** settings act at once when the file is read again: on `SIGHUP`, or when they are changed in the panel. They hold
for what begins afterwards; what runs goes on as it began. The others act after a restart. A file that cannot be used
changes nothing: the log says why.

An unknown name, a wrong type or a value that does not fit ends the start with its place and the nearest name.
"""


def page() -> str:
    """The page, in Markdown."""
    sections: dict[str, list[Leaf]] = {}
    for leaf in leaves():
        sections.setdefault(leaf.name.rpartition(".")[0] or leaf.name, []).append(leaf)
    parts = [HEAD]
    for section, inside in sections.items():
        parts.append(f"\n## {section}\n\n| setting | default | unit | live | |\n|---|---|---|---|---|\n")
        parts += map(_row, inside)
    parts.append(
        "\n## Variables of earlier tools\n\nOurs wins where both are set.\n\n| variable | setting |\n|---|---|\n"
    )
    parts += [f"| `{variable}` | `{name}` |\n" for variable, name in LEGACY.items()]
    return "".join(parts)


def _row(leaf: Leaf) -> str:
    default = "" if leaf.default in ("", (), {}, None) else f"`{_default(leaf)}`"
    live = "yes" if leaf.live else ""
    said = leaf.help.replace("|", "\\|")
    secret = " Secret." if leaf.secret else ""
    return f"| `{leaf.name.rpartition('.')[2]}` | {default} | {leaf.unit} | {live} | {said}{secret} |\n"


def _default(leaf: Leaf) -> str:
    if plain(leaf.kind) is float and isinstance(leaf.default, float):
        return f"{leaf.default:g}"
    return literal(leaf.default)
