"""The commands, one file a group, and what those of the accounts work with."""
