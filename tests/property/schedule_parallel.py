"""One process of the test of many processes: `worker` runs real ADDs and DELs, `janitor` runs passes.

The registry is directories of files named after container IDs or addresses; each stands for what the kernel shows of
a node, and is changed in the order in which reality changes:

`born/<ID>`     a CNI plugin is at work on it; there before host-local is called, until the address is up
`shim/<ID>`     a process runs for it (of some owners only)
`up/<address>`  the address is on a network namespace; made with O_EXCL, so that a second owner is found out
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from janitor.core.leases.confirmation import agreed, observe_again
from janitor.core.leases.judgement import judge
from janitor.core.leases.plan import plan
from janitor.core.model.action import FreeLease, Plan, Policy
from janitor.core.model.evidence import (
    EVIDENCE_VERSION,
    Clock,
    Endpoint,
    Evidence,
    LeaseDirectory,
    Network,
    NetworkNamespace,
    Observation,
    Pod,
    Process,
    RuntimeProcess,
    Sandbox,
)
from janitor.core.model.node_mark import Owner
from janitor.host.changes.apply import ApplyContext, Witness, apply
from janitor.host.changes.journal import Journal
from janitor.host.changes.undo import undo
from janitor.host.cni.leases import read_directory
from janitor.host.node import files_only
from tests.nodes import booted
from tests.property.schedule_node import DATA_DIR, DIRECTORY, MOUNTS, NETWORK, RANGES, host_local

FASTER = 400
"""The clock that janitor is shown: the floor of the grace passes in 0.15 s."""


def now_ns() -> int:
    return time.monotonic_ns() * FASTER


@dataclass(frozen=True, slots=True)
class Registry:
    root: Path

    def make(self) -> None:
        for name in ("born", "shim", "up", "done"):
            (self.root / name).mkdir()

    def names(self, kind: str) -> list[str]:
        return sorted(os.listdir(self.root / kind))

    def claim(self, kind: str, name: str, content: str) -> None:
        """Make it; FileExistsError where it is somebody's."""
        fd = os.open(self.root / kind / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(fd, content.encode())
        os.close(fd)

    def give_up(self, kind: str, name: str) -> None:
        (self.root / kind / name).unlink(missing_ok=True)

    def read(self, kind: str, name: str) -> str:
        try:
            return (self.root / kind / name).read_text()
        except FileNotFoundError:
            return ""


class Worker:
    """Starts pods, stops them, and lets some of them die in the ways that leave a lease behind."""

    def __init__(self, root: Path, number: int) -> None:
        self.registry, self.data_dir, self.number = Registry(root), f"{root}{DATA_DIR}", number
        self.directory = Path(f"{root}{DIRECTORY}")
        self.random = random.Random(number)
        self.mine: dict[str, str] = {}  # ID -> address
        self.serial = 0
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.wrong:
            self.verify()
            what = self.random.random()
            if what < 0.55 or not self.mine:
                self.start()
            elif what < 0.8:
                self.stop(self.random.choice(sorted(self.mine)))
            else:
                self.die(self.random.choice(sorted(self.mine)))
        self.verify()

    def start(self) -> None:
        if len(self.mine) >= 3:
            return
        self.serial += 1
        container_id = f"{self.number:032x}{self.serial:032x}"
        self.registry.claim("born", container_id, str(now_ns()))
        address = host_local(self.data_dir, "ADD", container_id)
        self.did["ADD"] += 1
        if address is None:
            self.did["range full"] += 1
            self.registry.give_up("born", container_id)
            time.sleep(0.02)
            return
        time.sleep(self.random.choice((0, 0, 0.001, 0.01)))
        if self.random.random() < 0.15:
            self.registry.give_up("born", container_id)  # kill -9 before the address was up
            self.did["cut short"] += 1
            self.empty(container_id, address)
            return
        try:
            self.registry.claim("up", address, container_id)
        except FileExistsError:
            self.wrong.append(f"{address} is {container_id}'s, and was given to {self.registry.read('up', address)}")
        if self.serial % 2:
            self.registry.claim("shim", container_id, "")
        self.registry.give_up("born", container_id)
        self.mine[container_id] = address

    def stop(self, container_id: str) -> None:
        address = self.mine.pop(container_id)
        self.registry.claim("born", container_id, str(now_ns()))
        self.registry.give_up("shim", container_id)
        self.registry.give_up("up", address)
        host_local(self.data_dir, "DEL", container_id)
        self.registry.give_up("born", container_id)
        self.did["DEL"] += 1

    def die(self, container_id: str) -> None:
        address = self.mine.pop(container_id)
        self.registry.give_up("up", address)
        self.registry.give_up("shim", container_id)
        self.did["died without DEL"] += 1
        self.empty(container_id, address)

    def empty(self, container_id: str, address: str) -> None:
        """Of some that are dead the lease loses its bytes; under the lock, so that it is surely theirs."""
        if self.random.random() < 0.3:
            with locked(self.directory):
                path = self.directory / address
                if path.exists() and path.read_bytes().startswith(container_id.encode()):
                    path.write_bytes(b"")
                    self.did["emptied"] += 1

    def verify(self) -> None:
        for container_id, address in self.mine.items():
            try:
                found = (self.directory / address).read_bytes()
            except FileNotFoundError:
                found = b"(nothing)"
            if found != f"{container_id}\r\neth0".encode():
                self.wrong.append(f"{container_id} lost the lease of {address}: {found!r}")
            if self.registry.read("up", address) != container_id:
                self.wrong.append(f"{address} of {container_id} is {self.registry.read('up', address)}'s")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory / "lock", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Janitor:
    """Passes, as fast as they go, with nobody but host-local's lock between two janitors."""

    def __init__(self, root: Path, number: int) -> None:
        self.root, self.number, self.registry = root, number, Registry(root)
        self.journal = Journal(str(root / f"janitor-{number}"))
        self.random = random.Random(number)
        self.observations: tuple[Observation, ...] = ()
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []

    def kernel(self) -> tuple[tuple[Process, ...], tuple[str, ...]]:
        """In the order of the real one: processes, then namespaces."""
        plugins = [
            Process(1, "bridge", int(self.registry.read("born", name) or 0), (), "ADD", name)
            for name in self.registry.names("born")
        ]
        shims = [Process(2, "containerd-shim", 0, (name,)) for name in self.registry.names("shim")]
        return (*plugins, *shims), tuple(self.registry.names("up"))

    def look(self) -> tuple[Evidence, Plan]:
        started = Clock(now_ns(), now_ns())
        directory: LeaseDirectory | None = read_directory(files_only(str(self.root)), DIRECTORY, MOUNTS)
        assert directory is not None
        listed = self.registry.names("shim")[:: self.random.choice((1, 2))]  # CRI may not know all of them
        seen, addresses = self.kernel()
        evidence = Evidence(
            version=EVIDENCE_VERSION, janitor="0", node="node", root=str(self.root), started=started,
            finished=started, boot_id="boot",
            networks=(Network(NETWORK, DATA_DIR, "10.conflist", ("bridge",), "0.3.1", RANGES, used_by_cri=True),),
            plugin_dirs=(), allowed_data_dirs=(), lease_directories=(directory,), cache=(),
            endpoints=(
                Endpoint(
                    "unix:///run/containerd/containerd.sock", "kubelet", "containerd", "1.7.24",
                    tuple(Sandbox(name, Pod("default", "p"), True, 0, "pod", ()) for name in listed), (),
                    (RuntimeProcess(3, "containerd", 0, 0),),
                ),
            ),
            namespaces=(NetworkNamespace(1, "process 1", ("127.0.0.1", *addresses), ()),), processes=seen,
            task_directories=(), ledger=(), observations=self.observations,
            this_node=(Owner("", "", first=True),),
        )  # fmt: skip
        judgement = judge(evidence, 60)
        self.observations = observe_again(evidence, judgement)
        return evidence, plan(evidence, judgement, Policy(grace_s=60))

    def witness(self) -> Witness:
        seen, addresses = self.kernel()
        return Witness(
            frozenset(i for p in seen for i in (*p.container_ids, p.cni_container_id) if i), frozenset(addresses)
        )

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            before, first = self.look()
            if first.actions:
                after, second = self.look()
                both = agreed(first, second, before, after)
                number += 1
                name = f"{self.number}-{number}"
                node = booted(self.root, "boot")
                context = ApplyContext(node, name, self.journal, MOUNTS, self.witness, patience_s=1.0)
                for outcome in apply(both.actions, context):
                    self.did[f"{outcome.action.kind}: {outcome.event}"] += 1
                    self.did["freed: names nobody"] += (
                        outcome.event == "done"
                        and isinstance(outcome.action, FreeLease)
                        and not outcome.action.container_id
                    )
                    if outcome.event == "failed":
                        self.wrong.append(str(outcome))
                if self.random.random() < 0.15:
                    for restored in undo(name, context):
                        self.did["undo: back" if restored.ok else "undo: refused"] += 1
            self.did["passes"] += 1
            time.sleep(0.01)
        for entry in self.journal.entries.values():
            if (entry.state == "done") != os.path.exists(f"{self.root}{entry.quarantine}"):
                self.wrong.append(f"not where the journal says: {entry}")


def main(role: str, root: str, number: str, seconds: str) -> None:
    part: Worker | Janitor = (Worker if role == "worker" else Janitor)(Path(root), int(number))
    part.run(float(seconds))
    report = {"did": part.did, "wrong": part.wrong, "alive": part.mine if isinstance(part, Worker) else {}}
    (Path(root) / "done" / f"{role}-{number}").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
