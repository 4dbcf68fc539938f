"""Plumbing: HTTP in and out. Knows no domain; imports only `errors`."""
