"""kirostream: a streaming gateway between tools that speak OpenAI or Anthropic and the models of Kiro.

Rooms, from the inside out: `turn` (the model in the middle), `dialects` (languages), `filters` (repairs), `net`
(HTTP plumbing), `telemetry` (what happened), `accounts` (who may call), `providers` (places), `relay` (the one use
case), `gateway` (the public API), `simulator` (an upstream that lies on request), and `settings`, `app`, `cli` on top.
"""

from kirostream._version import __version__

__all__ = ["__version__"]
