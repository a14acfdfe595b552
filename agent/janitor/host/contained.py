"""Whether a process is in a container, as far as the kernel shows it. Standard library only."""

import os
import re
from collections.abc import Callable
from typing import Final

from janitor.host.files import read_bounded
from janitor.host.procfs import Proc

_GROUP: Final = re.compile(r"kubepods|(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_LIMIT: Final = 1 << 18


def contained_in(proc: Proc) -> Callable[[int], bool]:
    """A function that says of a process number whether it is in a container. It never raises; in doubt it says yes.

    One is that has another PID or user namespace than process 1, or a cgroup as runtimes and kubelets name them.
    """

    def contained(pid: int) -> bool:
        try:
            for kind in ("pid", "user"):
                if os.readlink(f"{proc.path}/{pid}/ns/{kind}") != os.readlink(f"{proc.path}/1/ns/{kind}"):
                    return True
            groups = read_bounded(f"{proc.path}/{pid}/cgroup", _LIMIT).decode("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            return False  # it has ended
        except OSError:
            return True
        return _GROUP.search(groups) is not None

    return contained
