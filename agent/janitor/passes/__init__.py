"""Passes over one node: looking at it, and changing it."""
