"""janitor, with a clock that is ahead: clock.py SECONDS WORD…

A test that has shown what waiting would show need not wait. Both clocks of a pass are read this much later than they
are; nothing else is different: files, processes and their start times are those of the node.
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
