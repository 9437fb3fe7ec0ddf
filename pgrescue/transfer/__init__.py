"""The app database of a source, moved into an empty target: preflight, move, compare; or written as a migration."""
