"""Leases: who owns them, which are dead, and what may be done about them."""
