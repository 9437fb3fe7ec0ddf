"""Choosing how a copy is made startable, and doing it."""
