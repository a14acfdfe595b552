"""A node to break: a real containerd with host-local in its own namespaces, and a simulated one without root.

`node.Node` is the real one, `simulated.SimulatedNode` the other; `demo` tells a story with either.
"""
