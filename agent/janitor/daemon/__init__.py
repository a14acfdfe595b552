"""The daemon: one loop, its components, and what they report."""
