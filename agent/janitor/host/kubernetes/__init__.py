"""Kubernetes on this node: its components, their configuration, and the API."""
