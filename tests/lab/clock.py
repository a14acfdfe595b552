"""Runs janitor with its clocks set ahead: clock.py SECONDS WORD…

With this, tests need not wait. Both clocks of a pass are this much ahead; nothing else is changed: files, processes and
their start times are the node's.
"""

import sys

from janitor.commands.cli import main
from janitor.core.model.evidence import Clock
from janitor.host.kernel import procfs

if __name__ == "__main__":
    ahead_ns = int(sys.argv.pop(1)) * 1_000_000_000
    now = procfs.clock
    procfs.clock = lambda: Clock(now().realtime_ns + ahead_ns, now().boottime_ns + ahead_ns, now().asleep_ns)
    main()
