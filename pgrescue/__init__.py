"""pgrescue: a physical PostgreSQL snapshot becomes a running, checked server."""

__version__ = "0.1.0"
