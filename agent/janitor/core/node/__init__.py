"""The configuration of Kubernetes on this node, and conclusions from it."""
