"""The configuration of Kubernetes on this node, and what follows from it."""
