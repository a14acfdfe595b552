"""Takes pictures of the daemon's page for docs/ with a headless Chromium: `python -m tests.lab.screenshots`, as root.

Three real nodes: one in order, one whose range is used up by orphans, one with findings of several kinds. Each page is
loaded by a browser on the node. Chromium's network log shows what each page requested (the browser's own requests to
its vendor have another initiator): exit 1 if it requested anything except from janitor.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.cache import REPOSITORY
from tests.lab.daemon import Daemon
from tests.lab.networks import calico
from tests.lab.node import Node
from tests.system.test_clean import leak

ADDRESS = "http://127.0.0.1:9742"
SIZES = {400: 2400, 1400: 1500}
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-extensions",
    "--user-data-dir=/run/lab/profile",
)  # fmt: skip


def in_order(node: Node) -> None:
    for number in range(24):
        node.kubelet.run(f"web-{number}", "shop")


def used_up(node: Node) -> None:
    for number in range(4):
        node.kubelet.run(f"web-{number}", "shop")
    leak(node, 249)


def with_findings(node: Node) -> None:
    """Pods after a power cut, a lease that somebody removed, one of another program, and orphans."""
    for number in range(6):
        node.kubelet.run(f"old-{number}", "shop")
    node.cut()
    node.boot()
    for number in range(5):
        node.kubelet.run(f"web-{number}", "shop")
    gone = node.kubelet.run("api-0", "shop")
    (node.leases() / gone.ip).unlink()
    leak(node, 12)
    (node.leases() / "10.52.0.200").write_text("buildkit-worker\r\neth0")


SITUATIONS = {"healthy": in_order, "exhausted": used_up, "findings": with_findings}


@contextmanager
def shown(name: str) -> Iterator[Node]:
    """A node in that situation, with a daemon that only observes."""
    with Node(networks=[calico()]) as node:
        node.boot()
        SITUATIONS[name](node)
        time.sleep(2.5)
        node.restart_runtime()  # anything older than this start can be proven dead
        with Daemon(node, config='mode = "observe"\ninterval = 2\n', ahead=100) as daemon:
            daemon.wait_for("event=pass")
            yield node


def photograph(node: Node, name: str, width: int) -> list[str]:
    """Take one picture; returns the URLs that the browser requested."""
    there = node.root / "run/lab"
    there.mkdir(exist_ok=True)
    size = f"--window-size={width},{SIZES[width]}"
    words = [
        "chromium",
        *QUIET,
        size,
        "--screenshot=/run/lab/page.png",
        "--log-net-log=/run/lab/net.json",
        f"{ADDRESS}/",
    ]
    done = node.run(words, env={"HOME": "/run/lab"}, timeout=60)
    if done.returncode != 0 or not (there / "page.png").exists():
        sys.exit(f"chromium: {done.stderr[-500:]}")
    shutil.copy(there / "page.png", REPOSITORY / f"docs/page-{name}-{width}.png")
    log = json.loads((there / "net.json").read_text())
    kinds = {number: kind for kind, number in log["constants"]["logEventTypes"].items()}
    requests = [event.get("params", {}) for event in log["events"] if kinds[event["type"]] == "URL_REQUEST_START_JOB"]
    asked = [
        request["url"]
        for request in requests
        if request.get("initiator", "").startswith(ADDRESS) or request.get("url", "").startswith(ADDRESS)
    ]
    shutil.rmtree(there)
    return asked


def main() -> None:
    if shutil.which("chromium") is None:
        sys.exit("not installed: chromium (apt-get install chromium)")
    elsewhere: list[str] = []
    for name in SITUATIONS:
        with shown(name) as node:
            for width in SIZES:
                asked = photograph(node, name, width)
                elsewhere += [url for url in asked if not url.startswith(f"{ADDRESS}/")]
                if not asked:
                    sys.exit("chromium's log does not show the page")
                print(f"docs/page-{name}-{width}.png: asked for {', '.join(sorted(set(asked)))}")
    sys.exit(f"asked for something else: {elsewhere}" if elsewhere else 0)


if __name__ == "__main__":
    main()
