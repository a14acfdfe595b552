"""A node for schedules: the real host-local on a real directory, and a plain-Python model of everything else.

The model knows the truth: who is alive, who is being born, which address is up where. What janitor gets to see of it
is made in schedule_pass.py. Time is the model's: each file's times are translated from the disk's to those of the
model's wall clock at the moment of the change, so that clocks can step and hours pass.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

from janitor.core.model.addresses import in_ranges, make_range
from janitor.core.model.evidence import FileIdentity, LeaseDirectory, LeaseFile, Process, RuntimeProcess, known
from janitor.core.model.lease import identity, parse_lease
from janitor.host.changes import state
from janitor.host.changes.journal import Journal
from janitor.host.cni.leases import read_directory
from janitor.host.kernel.mounts import own_mounts
from janitor.host.node import files_only
from tests.nodes import booted

INSTALLED = "/usr/lib/cni/host-local"
PLUGIN = "JANITOR_HOST_LOCAL"  # in the environment: another one, for this process and those that it starts
SECOND = 1_000_000_000
NETWORK = "net"
DATA_DIR = "/var/lib/cni/networks"
DIRECTORY = f"{DATA_DIR}/{NETWORK}"
RESULTS = "/var/lib/cni/results"
QUARANTINE = "/var/lib/janitor/quarantine"
RANGE = {"subnet": "10.9.0.0/28"}
RANGES = ((make_range(RANGE["subnet"]),),)
BOOKKEEPING = ("lock", "last_reserved_ip.0")
FOREIGN = {
    "source-vip": b"10.9.0.1",
    "10.9.0.14": b"by hand",  # inside the range, and no CRI sandbox
    "10.77.0.5": b"f" * 64 + b"\r\neth0",  # outside the range
    "10.9.0.013": b"",  # not as host-local writes an address
}

figures: Counter[str] = Counter()
"""What happened in all schedules together."""

MOUNTS = own_mounts()


def plugin() -> str:
    """The host-local that is run."""
    return os.environ.get(PLUGIN, INSTALLED)


def host_local(data_dir: str, command: str, container_id: str) -> str | None:
    """Run the real plugin. The address it gave at ADD, "" for DEL; None where it failed."""
    done = subprocess.run(
        [plugin()],
        input=json.dumps({"cniVersion": "0.3.1", "name": NETWORK, "type": "x", "ipam": ipam(data_dir)}),
        env={
            "CNI_COMMAND": command, "CNI_CONTAINERID": container_id, "CNI_NETNS": "/x", "CNI_IFNAME": "eth0",
            "CNI_PATH": "/usr/lib/cni",
        },
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if done.returncode != 0:
        if "no IP addresses available" not in done.stdout:
            raise AssertionError(f"host-local {command}: {done.stdout} {done.stderr}")
        return None
    return str(json.loads(done.stdout)["ips"][0]["address"]).partition("/")[0] if command == "ADD" else ""


def ipam(data_dir: str) -> dict[str, object]:
    return {"type": "host-local", "dataDir": data_dir, "ranges": [[RANGE]]}


@dataclass(slots=True, eq=False)
class Owner:
    """A pod, from the start of its CNI plugin until nobody remembers it.

    It is alive while a plugin is bringing it up, and while its address is on its network namespace or in its virtual
    machine; it is `leaving` from the moment its CNI DEL has begun.
    """

    container_id: str
    address: str
    plugin: Process | None
    slow_fd: int = -1  # host-local is in the middle of Reserve: the lock is held, the lease is there and empty
    up: bool = False
    vm: bool = False
    shim: int = 0
    record: bool = False
    listed: str = ""  # "", READY or NOTREADY: what CRI would say if it told the truth
    leaving: bool = False
    unleased: bool = False  # somebody's rm -rf took its lease

    @property
    def alive(self) -> bool:
        return not self.leaving and (self.plugin is not None or self.up or self.vm)


@dataclass(slots=True)
class Node:
    """The node. Every method of EVENTS is one thing that happens on it, or nothing where it cannot happen now."""

    root: str
    chain: bool = False  # the libcni cache has a chain that can be run
    owners: list[Owner] = field(default_factory=list)
    boot_ns: int = 40 * SECOND
    offset_ns: int = 1_790_000_000 * SECOND  # wall clock minus boottime
    boot: int = 1
    serial: int = 0
    runtime: RuntimeProcess = field(default_factory=lambda: RuntimeProcess(0, "containerd", 0, 0))
    times: dict[tuple[int, str, int], int] = field(default_factory=dict)
    stored: dict[int, tuple[str, bytes]] = field(default_factory=dict)  # by inode: all that nobody released
    born_at: dict[int, tuple[int, int]] = field(default_factory=dict)  # by inode: boot, and boottime of its creation
    here: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    books: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)
    stale: tuple[Owner, ...] = ()
    journal: Journal = field(default_factory=lambda: Journal(""))

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True)
        for directory in (RESULTS, "/run"):
            (Path(self.root) / directory[1:]).mkdir(parents=True)
        self.journal = Journal(self.root)
        with self.change():
            self.sow()
            host_local(self.data_dir, "ADD", "0" * 64)
            host_local(self.data_dir, "DEL", "0" * 64)
        self.start_runtime()
        self.boot_ns += 100 * SECOND

    @property
    def data_dir(self) -> str:
        return f"{self.root}{DATA_DIR}"

    @property
    def path(self) -> Path:
        return Path(f"{self.root}{DIRECTORY}")

    @property
    def wall_ns(self) -> int:
        return self.boot_ns + self.offset_ns

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def sow(self) -> None:
        for name, content in FOREIGN.items():
            (self.path / name).write_bytes(content)

    def number(self) -> int:
        self.serial += 1
        return self.serial

    # --- the disk -------------------------------------------------------------------------------------

    def scan(self) -> dict[str, tuple[int, int, int]]:
        """Everything in the network's directory: inode and times, as the disk has them."""
        found: dict[str, tuple[int, int, int]] = {}
        if self.path.is_dir():
            with os.scandir(self.path) as listing:
                for entry in listing:
                    info = entry.stat(follow_symlinks=False)
                    found[entry.name] = (info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
        return found

    def leases(self) -> dict[str, bytes]:
        return {name: (self.path / name).read_bytes() for name in self.scan() if name not in BOOKKEEPING}

    def sync(self, by_janitor: bool = False) -> None:
        """Give what has changed on the disk its times on the model's clock.

        The disk's clock is too coarse to tell a file from the next one with its inode; that a name is new is not.
        """
        now = self.scan()
        for name, (inode, mtime, ctime) in now.items():
            if self.here.get(name) == (inode, mtime, ctime):
                continue
            fresh = not by_janitor and (name not in self.here or self.here[name][:2] != (inode, mtime))
            if fresh or (inode, "m", mtime) not in self.times:
                self.times[inode, "m", mtime] = self.wall_ns
            self.times[inode, "c", ctime] = self.wall_ns
        self.here = now

    def stamped(self, file: LeaseFile) -> LeaseFile:
        """The same with the model's times."""
        inode = file.inode
        return replace(
            file,
            mtime_ns=self.times.setdefault((inode, "m", file.mtime_ns), self.wall_ns),
            ctime_ns=self.times.setdefault((inode, "c", file.ctime_ns), self.wall_ns),
        )

    @contextmanager
    def change(self) -> Iterator[None]:
        """Around everything but janitor that writes: what is gone afterwards was released by its owner."""
        self.sync(by_janitor=True)
        before = {inode: name for name, (inode, _, _) in self.here.items()}
        self.boot_ns += 1_000_003
        yield
        self.sync()
        after = {inode: name for name, (inode, _, _) in self.here.items() if name not in BOOKKEEPING}
        for inode, name in before.items():
            if inode not in after or after[inode] != name:
                self.stored.pop(inode, None)
        for inode, name in after.items():
            if before.get(inode) != name or inode not in self.born_at:
                self.born_at[inode] = (self.boot, self.boot_ns)
            self.stored[inode] = (name, (self.path / name).read_bytes())
        self.books = self.read_books()

    def read_books(self) -> dict[str, tuple[int, int, bytes]]:
        return {
            name: (inode, mtime, (self.path / name).read_bytes())
            for name, (inode, mtime, _) in self.scan().items()
            if name in BOOKKEEPING
        }

    def read_leases(self) -> tuple[LeaseDirectory | None, LeaseDirectory | None]:
        """The directory as janitor reads it: as it is, and with the model's times."""
        self.sync(by_janitor=True)
        found = read_directory(files_only(self.root), DIRECTORY, MOUNTS)
        if found is None:
            return None, None
        return found, replace(found, entries=tuple(self.stamped(file) for file in known(found.entries)))

    # --- choosing -------------------------------------------------------------------------------------

    def one(self, pick: int, which: Callable[[Owner], bool]) -> Owner | None:
        fit = [owner for owner in self.owners if which(owner)]
        return fit[pick % len(fit)] if fit else None

    @property
    def busy(self) -> bool:
        return any(owner.slow_fd >= 0 for owner in self.owners)

    def new_owner(self, pick: int) -> Owner:
        serial = self.number()
        plugin = Process(10_000 + serial, "bridge", self.boot_ns, (), "ADD", f"{serial:064x}")
        # containerd 1.6 and 1.7 have a record of a sandbox being created only from some moment on.
        return Owner(f"{serial:064x}", "", plugin, record=bool(pick % 2))

    # --- what happens ---------------------------------------------------------------------------------

    def add(self, pick: int) -> None:
        """A sandbox is created: its plugin runs, host-local has given out the address, nothing else is there yet."""
        if self.busy:
            return
        owner = self.new_owner(pick)
        figures["ADD"] += 1
        with self.change():
            address = host_local(self.data_dir, "ADD", owner.container_id)
        if address is None:
            figures["ADD failed: range full"] += 1
            return
        owner.address = address
        taken = [other for other in self.owners if other.alive and other.address == address]
        if taken:
            # Only where somebody's rm -rf took the lease; the runtime notices and gives it back.
            assert all(other.unleased for other in taken), f"{address} was given out twice, to {taken} and {owner}"
            with self.change():
                host_local(self.data_dir, "DEL", owner.container_id)
            return
        if self.stale_inode(address):
            figures["address used again"] += 1
        self.owners.append(owner)

    def stale_inode(self, address: str) -> bool:
        return any(owner.address == address for owner in self.owners)

    def add_and_run(self, pick: int) -> None:
        """The whole of a normal start."""
        before = len(self.owners)
        self.add(pick)
        if len(self.owners) > before:
            owner = self.owners[-1]
            owner.up, owner.plugin = True, None
            self.register_it(owner)

    def janitor_has_the_lock(self) -> bool:
        """Whether it is taken, and by none of the model's own plugins."""
        if self.busy:
            return False
        try:
            fd = os.open(self.path / "lock", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def slow_add(self, pick: int) -> None:
        """host-local's Reserve, stopped between the creation of the lease and the writing of it. It holds the lock."""
        free = [str(a) for a in ip_address_range() if not (self.path / str(a)).exists()]
        if self.busy or not free or not self.path.is_dir() or not (self.path / "lock").exists():
            return
        address = free[pick % len(free)]
        if any(other.alive and other.address == address for other in self.owners):
            return  # it was taken by rm -rf
        owner = self.new_owner(pick)
        with self.change():
            owner.slow_fd = os.open(self.path / "lock", os.O_RDONLY)
            fcntl.flock(owner.slow_fd, fcntl.LOCK_EX)
            os.close(os.open(self.path / address, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        owner.address = address
        self.owners.append(owner)
        figures["ADD"] += 1
        figures["ADD stopped in Reserve"] += 1

    def slow_add_ends(self, pick: int) -> None:
        """It goes on, or it is killed: then the lease stays empty."""
        owner = self.one(pick, lambda o: o.slow_fd >= 0)
        if owner is None:
            return
        with self.change():
            if pick % 3 == 0:
                owner.plugin, owner.record = None, False
                figures["killed in Reserve"] += 1
            else:
                (self.path / owner.address).write_bytes(f"{owner.container_id}\r\neth0".encode())
                (self.path / "last_reserved_ip.0").write_text(owner.address)
            os.close(owner.slow_fd)
            owner.slow_fd = -1

    def comes_up(self, pick: int) -> None:
        owner = self.one(pick, lambda o: o.plugin is not None and o.slow_fd < 0 and not o.leaving)
        if owner is not None:
            owner.up = True
            if pick % 2:
                owner.plugin = None

    def register(self, pick: int) -> None:
        """The runtime lists it."""
        owner = self.one(pick, lambda o: o.up and not o.listed and not o.leaving)
        if owner is not None:
            self.register_it(owner)

    def register_it(self, owner: Owner) -> None:
        owner.listed, owner.record, owner.plugin = "READY", True, None
        owner.shim = 10_000 + self.number()
        self.cache_file(owner).write_text(json.dumps(self.cached(owner)))

    def into_vm(self, pick: int) -> None:
        """Kata: the address leaves the namespace for the virtual machine; its shim runs on."""
        owner = self.one(pick, lambda o: o.up and o.shim > 0 and not o.leaving)
        if owner is not None:
            owner.up, owner.vm = False, True

    def plugin_dies(self, pick: int) -> None:
        """kill -9 of the plugin in the middle of ADD: a lease of nobody, unless the address is up already."""
        owner = self.one(pick, lambda o: o.plugin is not None and o.slow_fd < 0 and not o.leaving)
        if owner is not None:
            owner.plugin = None
            owner.record = owner.record and bool(pick % 2)
            figures["ADD cut short"] += not owner.up

    def record_goes(self, pick: int) -> None:
        """The runtime has cleared away what it had begun; of the lease it knows nothing."""
        owner = self.one(pick, lambda o: o.record and not o.alive)
        if owner is not None:
            owner.record = False

    def stop_begins(self, pick: int) -> None:
        """CNI DEL: the lease goes first, and the address is still up."""
        owner = self.one(pick, lambda o: o.alive and o.plugin is None and o.shim > 0)
        if owner is None or self.busy:
            return
        owner.leaving = True
        figures["DEL"] += 1
        with self.change():
            host_local(self.data_dir, "DEL", owner.container_id)
        self.cache_file(owner).unlink(missing_ok=True)

    def stop_ends(self, pick: int) -> None:
        owner = self.one(pick, lambda o: o.leaving and (o.up or o.vm or o.shim > 0))
        if owner is not None:
            owner.up = owner.vm = False
            owner.shim, owner.listed = 0, "NOTREADY"

    def dies_without_del(self, pick: int) -> None:
        """Its namespace and its shim are gone and nobody has called DEL: a leak, still listed or not."""
        owner = self.one(pick, lambda o: o.alive and o.plugin is None)
        if owner is not None:
            owner.up = owner.vm = False
            owner.shim = 0
            owner.listed = owner.listed and ("NOTREADY", "")[pick % 2]
            owner.record = bool(owner.listed)
            figures["leaked by a running runtime"] += 1

    def late_del(self, pick: int) -> None:
        """Somebody gets round to stopping a dead sandbox, long after perhaps."""
        owner = self.one(pick, lambda o: not o.alive and o.slow_fd < 0)
        if owner is not None and not self.busy:
            figures["DEL"] += 1
            with self.change():
                host_local(self.data_dir, "DEL", owner.container_id)
            self.cache_file(owner).unlink(missing_ok=True)

    def changes_hands(self, pick: int) -> None:
        """A dead owner's lease is released after all, and its address given to somebody new at once."""
        leased = self.leases()
        old = self.one(
            pick,
            lambda o: o.slow_fd < 0 and ((o.alive and o.unleased) or (not o.alive and o.address in leased)),
        )
        if old is None or self.busy:
            return
        old.plugin, old.up, old.vm, old.shim, old.listed = None, False, False, 0, ""
        with self.change():
            host_local(self.data_dir, "DEL", old.container_id)
        self.cache_file(old).unlink(missing_ok=True)
        passed: list[Owner] = []
        while not passed or passed[-1].address != old.address:
            owner = self.new_owner(pick)
            with self.change():
                address = host_local(self.data_dir, "ADD", owner.container_id)
            if address is None:
                break  # it was in use by somebody else
            owner.address = address
            passed.append(owner)
        if passed and passed[-1].address == old.address:
            self.owners.append(passed.pop())
            figures["ADD"] += 1
            figures["address changed hands"] += 1
        with self.change():
            for owner in passed:
                host_local(self.data_dir, "DEL", owner.container_id)

    def forget(self, pick: int) -> None:
        """RemovePodSandbox, or the loss of the runtime's database."""
        owner = self.one(pick, lambda o: bool(o.listed) and not o.alive)
        if owner is not None:
            owner.listed, owner.record = "", False

    def lost_from_cri(self, pick: int) -> None:
        """The runtime has lost a sandbox whose namespace, or virtual machine, lives on."""
        owner = self.one(pick, lambda o: o.listed == "READY" and o.alive)
        if owner is not None:
            owner.listed, owner.record = "", bool(pick % 2)

    def runtime_restarts(self, pick: int) -> None:
        """kill -9 and a new one. Plugins at work live on or not; births that nobody waits for are not registered."""
        for number, owner in enumerate(self.owners):
            if owner.plugin is not None and owner.slow_fd < 0 and (pick + number) % 2:
                owner.plugin = None
                figures["ADD cut short"] += not owner.up
        self.start_runtime()
        figures["runtime restarts"] += 1

    def start_runtime(self) -> None:
        started = self.boot_ns
        self.boot_ns += SECOND // 3 * (1 + self.serial % 9)
        self.runtime = RuntimeProcess(10_000 + self.number(), "containerd", started, self.wall_ns)
        self.boot_ns += SECOND // 7

    def removed_by_hand(self, pick: int) -> None:
        """The popular cure, on a running node: the leases, or everything, or the directory as well."""
        if self.busy or pick % 4:
            return
        how = pick // 4 % 3
        with self.change():
            for name in self.scan():
                if how or parse_lease(LeaseFile(name, "file", 0, 0, 0, 0, 0, 0)).address is not None:
                    (self.path / name).unlink()
            if how == 2:
                self.path.rmdir()
        for owner in self.owners:
            owner.unleased = owner.alive
        figures["rm -rf"] += 1
        with self.change():
            self.path.mkdir(exist_ok=True)
            self.sow()

    def clock_steps(self, pick: int) -> None:
        self.offset_ns += (1, -1, 3, -3, 50, -50, 119, 3600, -3600, -(20 * 365 * 86_400), 20 * 365 * 86_400)[
            pick % 11
        ] * SECOND
        figures["clock steps"] += 1

    def time_passes(self, pick: int) -> None:
        self.boot_ns += (1, 2, 5, 20, 40, 61, 90, 200, 601, 1300, 7200)[pick % 11] * SECOND

    # --- what ends a boot -----------------------------------------------------------------------------

    def reboot(self, pick: int, ledger: bool) -> None:
        """The power goes: nothing runs any more, young files lose their bytes. The ledger comes before any runtime."""
        for owner in self.owners:
            if owner.slow_fd >= 0:
                os.close(owner.slow_fd)
            owner.slow_fd, owner.plugin, owner.up, owner.vm, owner.shim = -1, None, False, False, 0
            owner.listed = owner.listed and ("NOTREADY", "")[pick % 3 == 0]
            owner.record, owner.leaving, owner.unleased = bool(owner.listed), True, False
        with self.change():
            for name in sorted(self.scan()):
                path = self.path / name
                boot, born = self.born_at.get(path.stat().st_ino, (0, 0))
                if name in FOREIGN or name in BOOKKEEPING or boot != self.boot or self.boot_ns - born > 35 * SECOND:
                    continue
                content = path.read_bytes()
                path.write_bytes((b"", b"", content[:20], b"\0" * len(content))[pick % 4])
                figures["lease emptied by a power cut"] += 1
        for number, cached in enumerate(sorted(Path(f"{self.root}{RESULTS}").iterdir())):
            if (pick + number) % 3 == 0:
                cached.write_bytes(b"")
        self.boot += 1
        self.offset_ns += self.boot_ns + (0, 20, -86_400, -(10 * 365 * 86_400))[pick % 4] * SECOND
        self.boot_ns = 4 * SECOND
        shutil.rmtree(f"{self.root}/run")
        Path(f"{self.root}/run").mkdir()
        if ledger:
            state.write_ledger(booted(self.root, self.boot_id), self.ledger())
        self.boot_ns += 2 * SECOND
        self.start_runtime()
        figures["reboots"] += 1

    def ledger(self) -> tuple[FileIdentity, ...]:
        _, directory = self.read_leases()
        entries = known(directory.entries) if directory is not None else ()
        found = [identity(f"{DIRECTORY}/{f.name}", f) for f in entries if parse_lease(f).shape != "bookkeeping"]
        return tuple(this for this in found if this is not None)

    # --- libcni's cache -------------------------------------------------------------------------------

    def cache_file(self, owner: Owner) -> Path:
        return Path(f"{self.root}{RESULTS}/{NETWORK}-{owner.container_id}-eth0")

    def cached(self, owner: Owner) -> dict[str, object]:
        plugin = {"type": "host-local", "ipam": ipam(DATA_DIR)}
        config = {"cniVersion": "0.3.1", "name": NETWORK, "plugins": [plugin]}
        result = {"cniVersion": "0.3.1", "ips": [{"version": "4", "address": f"{owner.address}/28"}]}
        return {
            "kind": "cniCacheV1", "containerId": owner.container_id, "ifName": "eth0", "networkName": NETWORK,
            "config": base64.b64encode(json.dumps(config).encode()).decode(), "result": result,
        }  # fmt: skip

    def close(self) -> None:
        for owner in self.owners:
            if owner.slow_fd >= 0:
                os.close(owner.slow_fd)
        shutil.rmtree(self.root)


def ip_address_range() -> list[object]:
    first = int(ip_address(RANGES[0][0].start))
    last = int(ip_address(RANGES[0][0].end))
    every = [ip_address(number) for number in range(first, last + 1)]
    return [a for a in every if str(a) != RANGES[0][0].gateway and in_ranges(a, RANGES)]


EVENTS = (
    "add", "add", "add", "add_and_run", "add_and_run", "add_and_run", "slow_add", "slow_add_ends", "slow_add_ends",
    "comes_up", "comes_up", "register", "register", "into_vm", "plugin_dies", "plugin_dies", "record_goes",
    "stop_begins", "stop_begins", "stop_ends", "dies_without_del", "dies_without_del", "late_del", "forget", "forget",
    "lost_from_cri", "runtime_restarts", "removed_by_hand", "removed_by_hand", "changes_hands", "changes_hands",
    "clock_steps", "time_passes", "time_passes",
)  # fmt: skip


def new_root(chain: bool) -> str:
    """A root directory in the temporary one; with the plugin and its libraries in it where a chain is to be run."""
    root = tempfile.mkdtemp(prefix="janitor-schedule-")
    if chain:
        linked = subprocess.run(["ldd", plugin()], capture_output=True, text=True).stdout  # nothing, of a static one
        for word in [plugin(), *(w for w in linked.split() if w.startswith("/"))]:
            target = f"{root}{INSTALLED if word == plugin() else word}"
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(os.path.realpath(word), target)
    return root
