"""Findings and verdicts as text and documents. Pure: values in, text out; nothing is printed here."""
