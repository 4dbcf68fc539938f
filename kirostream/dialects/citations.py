"""Which pages of a search a text names, and where (client-apis.md sections 2.2 and 3.4, ``url_citation``).

Nothing is guessed: a page is cited where its whole address stands in the text. In a markdown link the citation is the
link, else the address. Places are counted in code points, the end is behind the last one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from kirostream.turn.request import SearchHit

Json: TypeAlias = dict[str, object]

LONGEST_LABEL: Final = 500
"""Characters of a link's text; a longer one is no label."""

_REST: Final = re.compile(r"[^\s<>\"'`)\]}|\\^]*")
_LABEL: Final = re.compile(r"[^\[\]\n]*")
_CLOSED: Final = re.compile(r"""(?:\s+"[^"\n]*"|\s+'[^'\n]*')?\)""")


class Citation(NamedTuple):
    """One place in a text. `start` and `end` as in a slice."""

    start: int
    end: int
    hit: SearchHit

    def wire(self) -> Json:
        """The members that both of OpenAI's languages give it."""
        title = self.hit.title or self.hit.url
        return {"start_index": self.start, "end_index": self.end, "url": self.hit.url, "title": title}


def citations(text: str, hits: Iterable[SearchHit]) -> list[Citation]:
    """Where `text` names pages of `hits`, in its order."""
    if "://" not in text:
        return []
    cited: dict[tuple[int, int], Citation] = {}
    for url, hit in {hit.url: hit for hit in hits if "://" in hit.url}.items():
        at = text.find(url)
        while at >= 0:
            end = at + len(url)
            rest = _REST.match(text, end)
            more = rest[0].rstrip(".,;:!?*_~") if rest else ""
            if more in ("", "/"):  # else it is the address of another page, which begins with this one's
                place = _link(text, at, end + len(more))
                if not more or place not in cited:
                    cited[place] = Citation(*place, hit)
            at = text.find(url, end)
    return [cited[place] for place in sorted(cited)]


def _link(text: str, start: int, end: int) -> tuple[int, int]:
    """The markdown link round an address, or the address itself."""
    if text.endswith("](", 0, start) and (closed := _CLOSED.match(text, end)):
        opened = text.rfind("[", max(0, start - LONGEST_LABEL), start - 2)
        if opened >= 0 and _LABEL.fullmatch(text, opened + 1, start - 2):
            return opened, closed.end()
    return start, end
