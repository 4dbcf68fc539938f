"""The public API: lets clients in, and pumps a rendering of the turn's log out."""
