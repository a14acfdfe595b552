"""A node with kube-router's policy routing and a real systemd-networkd, on a machine of namespaces.

networkd needs neither systemd as PID 1 nor udevd. With a writable /sys it waits for udev, so files in /run/udev/data
say that udev has seen every link. `networkctl` needs a bus, so a private one can be started. networkd 257 is Debian
13's, fetched with apt into the cache, and runs in its own root directory.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import cgroups, namespaces, runtimes
from tests.lab.machine import Machine
from tests.lab.node import JANITOR

NETWORKD = Path("/lib/systemd/systemd-networkd")
LINKS = 64
patience = 1.0  # factor for all timeouts; larger under emulation
ETH0 = "[Match]\nName={name}\n[Network]\nAddress={address}/24\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n"


def missing() -> str | None:
    """Why no such node can be made on this machine, or None."""
    if not NETWORKD.exists():
        return f"there is no {NETWORKD}: apt-get install systemd"
    if not shutil.which("dbus-daemon"):
        return "there is no dbus-daemon: apt-get install dbus"
    return namespaces.missing()


class NetworkdNode:
    """A machine with its own systemd-networkd."""

    def __init__(self, networkd: str = "", machine: Machine | None = None) -> None:
        """`machine`: one that already runs, with a container runtime on it."""
        self.machine = machine or Machine()
        self.run = self.machine.run
        self.networkd = networkd and str(
            Path(networkd).resolve()
        )  # a root directory with another networkd; "" for the installed one
        self._networkd: subprocess.Popen[str] | None = None
        self._bus: subprocess.Popen[str] | None = None
        self.janitors: list[subprocess.Popen[str]] = []

    def prepare(self) -> None:
        """What systemd, udev and the package provide before networkd starts."""
        self.sh(
            "mkdir -p /run/systemd/network /run/systemd/netif /run/systemd/networkd.conf.d /run/udev/data /run/dbus;"
            "chown systemd-network: /run/systemd/netif;"
            f"for i in $(seq {LINKS}); do echo I:1 >/run/udev/data/n$i; done;"
            "mount -t tmpfs -o mode=755 lab /etc/systemd/network"
        )

    def network_file(self, name: str, content: str) -> None:
        (self.machine.root / f"run/systemd/network/{name}.network").write_text(content)

    def drop_in(self, content: str, name: str = "90-test.conf") -> None:
        (self.machine.root / "run/systemd/networkd.conf.d" / name).write_text(content)

    # networkd.

    def start_networkd(self, *, wait: bool = True) -> None:
        """Start it; by default, wait until it has configured its link."""
        log = self.machine.directory / "networkd.log"
        offset = log.stat().st_size if log.exists() else 0
        argv = ["/lib/systemd/systemd-networkd"]
        if self.networkd:
            argv = ["chroot", f"/run/lab/{Path(self.networkd).name}", *argv]
            self._other_root()
        env = {"SYSTEMD_LOG_TARGET": "console", "SYSTEMD_LOG_LEVEL": "debug"}
        with log.open("a") as out:
            self._networkd = self.machine.popen(self.as_its_unit(argv), env=env, stdout=out, stderr=subprocess.STDOUT)
        if wait:
            said = "eth0: State changed: configuring -> configured"
            wait_for(lambda: said in log.read_text()[offset:], f"networkd to configure eth0: {log}")

    def as_its_unit(self, argv: Sequence[str], unit: str = "systemd-networkd.service") -> list[str]:
        """The same command in the control group of a system service, which is what identifies networkd."""
        groups = [str(path) for path in cgroups.unit(self.machine.name, unit)]
        enter = " ".join(f"echo $$ >{group}/cgroup.procs;" for group in groups)
        return ["sh", "-ec", f'{enter} exec "$@"', "sh", *argv]

    def stop_networkd(self) -> None:
        if self._networkd is not None:
            self._networkd.terminate()
            self._networkd.wait()
            self._networkd = None

    def restart_networkd(self) -> None:
        self.stop_networkd()
        self.start_networkd()

    def start_bus(self) -> None:
        """A system bus for this machine, for networkctl; start it before networkd."""
        self._bus = self.machine.popen(
            ["dbus-daemon", "--system", "--nofork", "--nopidfile", "--nosyslog"], stderr=subprocess.DEVNULL
        )
        wait_for(lambda: (self.machine.root / "run/dbus/system_bus_socket").exists(), "the bus")

    def networkctl(self, *arguments: str) -> None:
        """The installed networkctl: it talks to any version over the bus, but another root's refuses to in a chroot."""
        self.run(["networkctl", *arguments], check=True)

    def _other_root(self) -> None:
        """Mount the other networkd's files, with this machine's /run, /proc and /sys in them."""
        name = Path(self.networkd).name
        if not (self.machine.root / f"run/lab/{name}").exists():
            self.sh(
                f"mkdir /run/lab/{name}; mount --bind {self.networkd} /run/lab/{name};"
                f"for d in run proc sys dev; do mount --bind /$d /run/lab/{name}/$d; done"
            )

    # Looking.

    def sh(self, script: str) -> str:
        return self.run(["sh", "-ec", script], check=True).stdout

    def rules(self) -> str:
        """Every rule of both families, as printed by iproute2."""
        return self.sh("ip -details rule; echo; ip -6 -details rule")

    def janitor(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run([str(JANITOR), *args], **options)

    def watch(self, *args: str, env: dict[str, str] | None = None) -> Watcher:
        """Start `janitor run --only rules` and wait until it watches."""
        path = self.machine.directory / f"janitor-{len(self.janitors)}.log"
        with path.open("w") as log:
            process = self.machine.popen([str(JANITOR), "run", "--only", "rules", *args], stderr=log, env=env)
        self.janitors.append(process)
        watcher = Watcher(process, path)
        watcher.wait_for("watching rules")
        return watcher

    def close(self) -> None:
        for process in (self._networkd, self._bus, *self.janitors):
            if process is not None:
                process.kill()
                process.wait()
        self.machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RoutedNode(NetworkdNode):
    """A node as kube-router leaves it: kube-bridge, a tunnel, table 77 and the rules that lead there."""

    def __init__(self, networkd: str = "", machine: Machine | None = None) -> None:
        super().__init__(networkd, machine)
        self._router: subprocess.Popen[str] | None = None

    def boot(self) -> None:
        if not self.machine.running:
            self.machine.power_on()
        (self.machine.disk / "net.d/10-kuberouter.conflist").write_text(
            '{"cniVersion":"0.3.0","name":"kubernetes","plugins":[{"type":"bridge","bridge":"kube-bridge",'
            '"isDefaultGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.0.0/24"}],'
            '[{"subnet":"fd00:10:244::/64"}]]}}]}'
        )
        self.sh(
            "for n in eth0:peer0 tun-0123456789a:tunp; do ip link add ${n%:*} type veth peer name ${n#*:};"
            " ip link set ${n%:*} up; ip link set ${n#*:} up; done;"
            "ip addr add 192.0.2.10/24 dev eth0;"
            "ip link add kube-bridge type bridge; ip link set kube-bridge up;"
            "ip addr add 10.244.0.1/24 dev kube-bridge; ip addr add fd00:10:244::1/64 dev kube-bridge nodad;"
            # A bridge without a port has no carrier.
            "ip link add pod0 type veth peer name pod1; ip link set pod0 master kube-bridge up; ip link set pod1 up;"
            "ip route add 198.51.100.7/32 dev tun-0123456789a table 77;"
            "ip -6 route add 2001:db8::7/128 dev tun-0123456789a table 77;"
            "ip route add 10.244.1.0/24 via 192.0.2.2 dev eth0 proto 17;"
            "ip route add default via 192.0.2.1"
        )
        self.prepare()
        self.network_file("10-eth0", ETH0.format(name="eth0", address="192.0.2.10"))

    def kube_router(self, *arguments: str) -> None:
        """Start or restart the stand-in for kube-router, and add the rules as kube-router does at its start."""
        self.stop_kube_router()
        program = self.machine.root / "run/lab/kube-router"
        if not program.exists():
            program.write_text("#!/bin/sh\nexec 3<>/run/lab/kube-router.fifo\nread line <&3\n")
            program.chmod(0o755)
            self.sh("mkfifo /run/lab/kube-router.fifo")
        self._router = self.machine.popen(
            ["/run/lab/kube-router", "--run-router=true", "--enable-ipv6=true", *arguments]
        )
        if "--enable-overlay=false" in arguments:
            self.sh("ip rule del from 10.244.0.0/24 lookup 77; ip -6 rule del from fd00:10:244::/64 lookup 77; :")
            return
        self.sh(
            "ip rule | grep -q 10.244.0.0/24 || ip rule add from 10.244.0.0/24 lookup 77;"
            "ip -6 rule | grep -q fd00:10:244:: || ip -6 rule add from fd00:10:244::/64 lookup 77"
        )
        wait_for(lambda: "kube-router" in self._names(), "kube-router to be there")

    def stop_kube_router(self) -> None:
        """Kill it; as with the real one, its rules and routes stay."""
        if self._router is not None:
            self._router.kill()
            self._router.wait()
            self._router = None

    def _names(self) -> str:
        return "\n".join(
            (path / "comm").read_text() for path in (self.machine.root / "proc").glob("[0-9]*") if path.exists()
        )

    def close(self) -> None:
        self.stop_kube_router()
        super().close()

    def __enter__(self) -> Self:
        self.boot()
        return self


class Watcher:
    """A running `janitor run --only rules`, and its log."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self.path = path

    def log(self) -> str:
        return self.path.read_text()

    def wait_for(self, text: str, times: int = 1, timeout: float = 15) -> str:
        """Wait until it has logged this `times` times; returns the log."""
        wait_for(
            lambda: self.log().count(text) >= times or self.process.poll() is not None,
            f"{times} times {text!r}",
            timeout,
        )
        assert self.log().count(text) >= times, self.log()
        return self.log()

    def restored(self) -> list[float]:
        """For every restoration, the milliseconds between the last deletion and the restored rule."""
        return [float(ms) for ms in re.findall(r'event="rule restored".*after_ms=([0-9.]+)', self.log())]

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0, self.log()


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 15, pause: float = 0.01) -> None:
    deadline = time.monotonic() + timeout * patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout * patience:g} s for {what}")
        time.sleep(pause)


def debian13() -> Path:
    """The root directory with Debian 13's systemd-networkd and its libraries, fetched once. RuntimeError."""
    root = runtimes.debian_13_tree("systemd", with_dependencies=True)
    for name in ("run", "proc", "sys", "dev", "etc"):
        (root / name).mkdir(exist_ok=True)
    # networkd drops root for this user; the IDs must be the machine's, because both share /run.
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    return root
