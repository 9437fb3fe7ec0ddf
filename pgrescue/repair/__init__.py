"""Repairing a copy whose WAL was reset: what was torn apart is put together, set aside or named."""
