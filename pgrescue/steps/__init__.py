"""The steps of a rescue, one goal in each file."""
