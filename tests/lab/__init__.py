"""A node to break: a real containerd with host-local in namespaces of its own, and a simulated one without root.

`node.Node` is the real one, `simulated.SimulatedNode` the other; `demo` tells a story with either.
"""
