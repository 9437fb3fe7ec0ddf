"""What runs PostgreSQL's programs on a workspace: one contract, two engines."""
