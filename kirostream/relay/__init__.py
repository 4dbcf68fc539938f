"""The one use case: a question becomes a turn, tried until it is answered or cannot be."""
