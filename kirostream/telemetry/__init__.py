"""What happened, told once: rooms state facts, sinks decide what becomes of them."""
