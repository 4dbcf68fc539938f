"""The admin API and the panel: what an operator sees of a running gateway, and changes of it."""
