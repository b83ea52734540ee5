"""The files that tasks make."""
