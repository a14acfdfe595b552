"""Findings and verdicts as people and machines want them. Pure: text in, text out; nothing is printed here."""
