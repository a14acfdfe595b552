"""Leases: whose they are, which are dead, and what may be done about it."""
