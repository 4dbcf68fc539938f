"""What a turn is asked on: accounts, their tokens, and the models that they have."""

from __future__ import annotations

from kirostream.accounts.keeper import TokenKeeper
from kirostream.accounts.pool import Pool
from kirostream.dataclass import dataclass
from kirostream.relay.catalogue import Catalogues


@dataclass(frozen=True, slots=True)
class Fleet:
    """The accounts of the house, or the one that came with a request."""

    pool: Pool
    keeper: TokenKeeper
    catalogues: Catalogues
