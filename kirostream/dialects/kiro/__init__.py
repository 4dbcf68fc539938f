"""Kiro's language: conversation states in, event-stream frames out (kiro-protocol.md sections 2 to 4)."""
