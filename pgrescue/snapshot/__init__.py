"""What is there: one reader per input format behind `interface.py`, and the files that describe a data directory."""
