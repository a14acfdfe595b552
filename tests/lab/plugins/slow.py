"""A CNI plugin that waits or fails on request, and otherwise returns its input.

Files in /run/lab/slow of its node control it, so that a test can stop a call at an exact point:

    hold-ADD, hold-DEL   the call waits while the file exists
    fail-ADD, fail-DEL   the call fails (checked after the waiting)
    held-ADD-<id>        written by the plugin while it waits

Standard library only, and run with `python -IS`: a runtime starts it for each pod.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

DIRECTORY = Path("/run/lab/slow")


def main() -> int:
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        print(json.dumps({"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}))
        return 0
    config = json.load(sys.stdin)
    hold = DIRECTORY / f"hold-{command}"
    held = DIRECTORY / f"held-{command}-{os.environ['CNI_CONTAINERID']}"
    if hold.exists():
        held.touch()
        while hold.exists():
            time.sleep(0.02)
        held.unlink(missing_ok=True)
    if (DIRECTORY / f"fail-{command}").exists():
        error = {"cniVersion": config["cniVersion"], "code": 999, "msg": f"{command} fails: the test wants it to"}
        print(json.dumps(error))
        return 1
    if command == "ADD":
        print(json.dumps(config["prevResult"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
