"""The values that everything else uses: evidence, findings, actions, reasons. No decisions."""
