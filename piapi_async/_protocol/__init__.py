"""Bytes to values and back, for every protocol.  Pure."""
