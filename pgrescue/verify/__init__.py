"""Checking a copy before its server is opened: files, catalogs, heaps, indexes, writes."""
