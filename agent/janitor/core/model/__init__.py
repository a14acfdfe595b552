"""The values that everything else is written in: evidence, findings, actions, reasons. No decisions."""
