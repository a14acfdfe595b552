"""Changes of the node: their journal, their quarantine, and how they are undone."""
