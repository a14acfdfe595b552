"""Address plans: whether the ranges of a cluster fit together, and which would."""
