"""Anthropic Messages (client-apis.md section 4)."""
