"""Restore drills: an unattended rescue, assertions about it, a report."""
