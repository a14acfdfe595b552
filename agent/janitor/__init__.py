"""janitor: frees leaked CNI pod addresses, and says why a node's network is broken."""

import sys

sys.dont_write_bytecode = True  # a scan writes nothing, and that includes this

__version__ = "0.1.0"
