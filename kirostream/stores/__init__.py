"""Plumbing that keeps things: whole files, sealed secrets. It knows no domain."""
