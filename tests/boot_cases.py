"""The cases of the boot stage: what lies on the disk, and what must be gone afterwards. See test_boot_table.py."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ID = "0123456789abcdef" * 4
LEASE = f"{ID}\r\neth0".encode()
MARK = f"janitor-node 1 {'a' * 32} {'b' * 32} nested 1\n".encode()
CANAL = "networks/k8s-pod-network"
CACHED = f"results/k8s-pod-network-{ID}-eth0"


def conflist(name: str = "k8s-pod-network", *chain: str, ipam: Mapping[str, Any] | None = None, **more: Any) -> bytes:
    main = {"type": "calico", "ipam": {"type": "host-local", "subnet": "usePodCidr", **(ipam or {})}}
    return json.dumps(
        {"name": name, "cniVersion": "0.3.1", "plugins": [main, *({"type": t} for t in chain)], **more}
    ).encode()


WALLED = conflist("k8s-pod-network", "portmap", "firewall")
PODMAN = conflist("podman", "portmap", "firewall", "tuning")
FLANNEL = b'{"name": "cbr0", "plugins": [{"type": "flannel", "delegate": {}}]}'


@dataclass(frozen=True)
class Case:
    """`files` in /var/lib/cni, of which `gone` are moved; `configuration` in /etc/cni/net.d."""

    name: str
    files: Mapping[str, bytes]
    gone: frozenset[str] = frozenset()
    configuration: Mapping[str, bytes] = field(default_factory=lambda: {"10-canal.conflist": conflist()})


def contents(name: str, *, gone: bool, leases: tuple[bytes, ...]) -> Case:
    files = {f"{CANAL}/10.52.0.{number}": content for number, content in enumerate(leases, 2)}
    return Case(name, files, frozenset(files) if gone else frozenset())


def names(name: str, *, gone: bool, addresses: tuple[str, ...]) -> Case:
    files = {f"{CANAL}/{address}": LEASE for address in addresses}
    return Case(name, files, frozenset(files) if gone else frozenset())


def one(name: str, configuration: Mapping[str, bytes], *, gone: bool, at: str = CANAL, content: bytes = LEASE) -> Case:
    return Case(name, {f"{at}/10.52.0.7": content}, frozenset({f"{at}/10.52.0.7"} if gone else ()), configuration)


def configured(name: str, content: bytes, *, gone: bool) -> Case:
    """A lease that is not whole, so that it goes only if the configuration counts."""
    return one(name, {"10-canal.conflist": content}, gone=gone, content=b"")


def replaced(old: str, new: str) -> bytes:
    return conflist().replace(old.encode(), new.encode())


def cached(configuration: bytes) -> bytes:
    """An entry of libcni's cache."""
    config = base64.b64encode(configuration).decode()
    return json.dumps({"kind": "cniCacheV1", "containerId": ID, "config": config, "ifName": "eth0"}).encode()


def remembered(name: str, entry: bytes, *, gone: bool) -> Case:
    """No configuration, and a whole lease whose entry is this."""
    lease = f"{CANAL}/10.52.0.7"
    return Case(f"remembered: {name}", {lease: LEASE, CACHED: entry}, frozenset({lease} if gone else ()), {})


def multus(*chain: str, **more: Any) -> bytes:
    """A chain around multus, which delegates to k8s-pod-network."""
    plugins = [{"type": "multus", "delegates": [json.loads(conflist())]}, *({"type": t} for t in chain)]
    return json.dumps({"name": "multus-cni-network", "plugins": plugins, **more}).encode()


def obscure(plugin: str = "portmap", name: str = "k8s-pod-network") -> bytes:
    """What encoding/json reads, and we do not: bytes that are not Unicode."""
    return f'{{"name": "{name}", "plugins": [{{"type": "{plugin}", "note": "\xff"}}]}}'.encode("latin-1")


CASES = (
    contents(
        "CRI leases",
        gone=True,
        leases=(
            LEASE,
            ID.encode(),
            f"{ID}\neth0".encode(),
            f" {ID} \r\n eth0 \r\n".encode(),
            f"{ID}\reth0".encode(),
            f"\x1c\x0b{ID}\r\neth0\n\n".encode(),
            f"{ID}\r\na\nb".encode(),
        ),
    ),
    contents(
        "corrupt leases",
        gone=True,
        leases=(
            b"",
            bytes(70),
            b"\n",
            b" \t\r\n",
            b"\0\r\n",
            ID[:40].encode() + bytes(30),
            ID[:13].encode(),
            ID[:63].encode(),
            f"{ID}\r\n".encode() + bytes(4),
            f"{ID}\r\net".encode() + bytes(2),
            f"{ID}\r".encode() + bytes(5),
        ),
    ),
    contents(
        "foreign leases",
        gone=False,
        leases=(
            f"default-{ID}\r\neth0".encode(),
            b"1k2j3h4g5f6d7s8a9p0o1i2u3\r\neth0",
            b"4711\r\neth0",
            b"kube-proxy\r\nsource-vip",
            b"reserved for the printer",
            ID.upper().encode(),
            f"{ID}0\r\neth0".encode(),
            ID[:12].encode(),
            ID[:32].encode(),
            ID[:40].encode(),
            ID[:56].encode(),
            b"\xff" * 70,
            b"printer\0\0\0",
            f"{ID}\0eth0".encode(),
            b"\0" + LEASE,
            LEASE + bytes(4096),
            f"{ID}\nx\r\neth0".encode(),
            f"{ID}\r\n\xc3\xa9".encode("latin-1"),
            b"==> 10.52.0.2 <==\n",
            ID[:20].encode() + b"\n",
            f"{ID}\r\neth-0".encode() + bytes(2),
        ),
    ),
    names(
        "addresses as host-local writes them",
        gone=True,
        addresses=(
            "10.52.0.2",
            "0.0.0.0",
            "255.255.255.255",
            "fd00:52::5",
            "::",
            "::1",
            "fd00::",
            "1:0:0:2::3",
            "1::2:0:0:3:4",
            "fd00:1:2:3:4:5:6:7",
            "1:0:2:3:4:5:6:7",
            "64:ff9b::a34:2",
            "::fffe:1:2",
        ),
    ),
    names(
        "other names",
        gone=False,
        addresses=(
            "notanip",
            "010.0.0.1",
            "10.52.0.256",
            "10.52.0",
            "10.52.0.1.2",
            "10.52..1",
            "::ffff:10.0.0.1",
            "::ffff:a00:1",
            "fd00::01",
            "FD00::1",
            "fd00:0:0::1",
            "1::2:3:4:5:6:7",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            ":::",
            "fe80::1%eth0",
            "1:0:0:2:0:0:0:3",
            "10.52.0.3\n10.52.0.4",
            "10.52.0.5 ",
            ".10.52.0.6",
            "fd00::12345",
            "1::2::3",
            "lock2",
            "last_reserved_ip.x",
            "10.52.0.7.tmp",
            "-n",
            "*",
            "0x1.1.1.1",
        ),
    ),
    Case("nothing there", {}),
    Case("an empty directory", {f"{CANAL}/notanip": b""}),
    Case(
        "another network's directory beside it",
        {
            f"{CANAL}/10.52.0.2": LEASE,
            "networks/other/10.53.0.2": LEASE,
            "networks/podman/10.88.0.2": LEASE,
            "networks/other/10.53.0.3": b"",
        },
        frozenset({f"{CANAL}/10.52.0.2"}),
    ),
    # Networks.
    configured("the firewall plugin", conflist("k8s-pod-network", "portmap", "firewall"), gone=False),
    configured("disableGC", conflist(disableGC=True), gone=False),
    configured("disableGC as text", conflist(disableGC="true"), gone=False),
    configured("disableGC off", conflist(disableGC=False), gone=True),
    configured(
        "a single plugin", b'{"name": "k8s-pod-network", "type": "ptp", "ipam": {"type": "host-local"}}', gone=True
    ),
    configured("another IPAM plugin", conflist(ipam={"type": "dhcp"}), gone=False),
    one(
        "podman's configuration comes first",
        {"00-podman.conflist": PODMAN, "10-canal.conflist": conflist()},
        gone=False,
    ),
    one(
        "podman's comes later", {"10-canal.conflist": conflist(), "87-podman.conflist": PODMAN}, gone=True, content=b""
    ),
    one(
        "podman's leases beside",
        {"10-canal.conflist": conflist(), "87-podman.conflist": PODMAN},
        gone=False,
        at="networks/podman",
    ),
    one("podman's alone", {"87-podman.conflist": PODMAN}, gone=False, at="networks/podman"),
    one("the second network", {"10-a.conflist": conflist("a"), "10-canal.conflist": conflist()}, gone=False),
    one(
        ".conf comes before .conflist",
        {"10-a.conflist": conflist("a"), "10-a.conf": conflist()},
        gone=True,
        content=b"",
    ),
    one("a hidden file counts", {".9.json": conflist(), "10-a.conflist": conflist("a")}, gone=True, content=b""),
    one(
        "other files do not",
        {"00-a.conflist.bak": conflist("a"), "10-canal.conflist": conflist()},
        gone=True,
        content=b"",
    ),
    one("flannel", {"10-flannel.conflist": FLANNEL}, gone=True, at="networks/cbr0", content=b""),
    one(
        "flannel with another IPAM",
        {"10.conf": b'{"name": "cbr0", "type": "flannel", "ipam": {"type": "x"}}'},
        gone=False,
        at="networks/cbr0",
        content=b"",
    ),
    one(
        "multus delegates",
        {
            "00-multus.conf": json.dumps(
                {"name": "multus-cni-network", "type": "multus", "delegates": [3, {}, json.loads(conflist())]}
            ).encode()
        },
        gone=True,
        content=b"",
    ),
    one("a chain around multus", {"00-multus.conflist": multus("tuning")}, gone=True, content=b""),
    one("a firewall around multus", {"00-multus.conflist": multus("firewall")}, gone=False),
    one("disableGC around multus", {"00-multus.conflist": multus(disableGC=True)}, gone=False),
    one(
        "a firewall around a network that multus names",
        {
            "00-multus.conf": json.dumps(
                {
                    "name": "m",
                    "plugins": [{"type": "multus", "clusterNetwork": "k8s-pod-network"}, {"type": "firewall"}],
                }
            ).encode(),
            "10-canal.conflist": conflist(),
        },
        gone=False,
    ),
    one(
        "a delegate without a name",
        {
            "00-multus.conf": json.dumps(
                {"name": "multus", "type": "multus", "delegates": [{"type": "x", "ipam": {"type": "host-local"}}]}
            ).encode()
        },
        gone=True,
        content=b"",
        at="networks/multus",
    ),
    one(
        "multus names a network",
        {
            "00-multus.conf": b'{"name": "m", "type": "multus", "clusterNetwork": "k8s-pod-network"}',
            "10-canal.conflist": conflist(),
        },
        gone=True,
        content=b"",
    ),
    one(
        "multus names a file",
        {
            "00-multus.conf": b'{"name": "m", "type": "multus-shim", "clusterNetwork": "/host/x/10-c.conf"}',
            "10-c.conf": conflist(),
        },
        gone=True,
        content=b"",
    ),
    one(
        "multus names another",
        {
            "00-multus.conf": b'{"name": "m", "type": "multus", "clusterNetwork": "b"}',
            "10-canal.conflist": conflist(),
            "20-b.conflist": conflist("b"),
        },
        gone=False,
    ),
    # Data directories.
    one(
        "a data directory",
        {"10.conf": conflist(ipam={"dataDir": "/var/lib/cni/elsewhere"})},
        gone=True,
        content=b"",
        at="elsewhere/k8s-pod-network",
    ),
    one("which is not this one", {"10.conf": conflist(ipam={"dataDir": "/var/lib/cni/elsewhere"})}, gone=False),
    one(
        "written in a roundabout way",
        {"10.conf": conflist(ipam={"dataDir": "/var//lib/./cni/x/../elsewhere/"})},
        gone=True,
        content=b"",
        at="elsewhere/k8s-pod-network",
    ),
    one(
        "with a space",
        {"10.conf": conflist(ipam={"dataDir": "/var/lib/cni/else where"})},
        gone=False,
        content=b"",
        at="else where/k8s-pod-network",
    ),
    one("empty", {"10.conf": conflist(ipam={"dataDir": ""})}, gone=True, content=b""),
    one("relative", {"10.conf": conflist(ipam={"dataDir": "networks"})}, gone=False, content=b""),
    one("a name CNI does not allow", {"10.conf": conflist("a b")}, gone=False, content=b"", at="networks/a b"),
    one("a name with umlauts", {"10.conf": conflist("größe")}, gone=False, content=b"", at="networks/größe"),
    # What is JSON, and what is not.
    configured("escapes", replaced('"k8s-pod-network"', r'"\u006b8s-pod-\u006eetwork"'), gone=True),
    configured("text in UTF-8", conflist(note="größe €  \U0001f600") + b" \r\n\t", gone=True),
    configured(
        "UTF-8 as it is",
        json.dumps(json.loads(conflist(note="größe €\U0001f600")), ensure_ascii=False).encode(),
        gone=True,
    ),
    configured("numbers", conflist(note=[0, -1, 1.5, 1e9, -2.5e-3, True, None]), gone=True),
    configured(
        "a key twice", replaced('"type": "calico", ', '"type": "calico", "ipam": {"dataDir": "/x"}, '), gone=False
    ),
    configured(
        "a key twice but for its case",
        replaced('"type": "host-local"', '"type": "host-local", "TYPE": "x"'),
        gone=False,
    ),
    configured("a key in another case", replaced('"ipam"', '"IPAM"'), gone=False),
    configured("an unknown key in any case", conflist(Note=1, nested={"MTU": 1}), gone=True),
    configured("a key twice, the last one wins", conflist()[:-1] + b', "name": "other"}', gone=False),
    configured("other white space", conflist() + b"\x0b", gone=False),
    configured("invalid UTF-8", conflist()[:-1] + b', "x": "\xff"}', gone=False),
    configured("an overlong form", conflist()[:-1] + b', "x": "\xc0\xaf"}', gone=False),
    configured("half a surrogate pair", conflist()[:-1] + b', "x": "\\ud800"}', gone=False),
    configured("a surrogate pair", conflist()[:-1] + b', "x": "\\ud83d\\ude00"}', gone=True),
    configured("a NUL", conflist()[:-1] + b', "x": "\\u0000"}', gone=False),
    configured("a control character", conflist()[:-1] + b', "x": "\x01"}', gone=False),
    configured("a comment", b"// canal\n" + conflist(), gone=False),
    configured("a comma too many", conflist()[:-1] + b",}", gone=False),
    configured("NaN", conflist()[:-1] + b', "x": NaN}', gone=False),
    configured("01", conflist()[:-1] + b', "x": 01}', gone=False),
    configured("more after it", conflist() + b"{}", gone=False),
    configured("cut short", conflist()[:-20], gone=False),
    configured("nested a hundred deep", conflist()[:-1] + b', "x": ' + b"[" * 100 + b"]" * 100 + b"}", gone=True),
    configured("nested deeper", conflist()[:-1] + b', "x": ' + b"[" * 101 + b"]" * 101 + b"}", gone=False),
    configured("nested far deeper", conflist()[:-1] + b', "x": ' + b"[" * 450 + b"]" * 450 + b"}", gone=False),
    configured("a byte order mark", b"\xef\xbb\xbf" + conflist(), gone=False),
    configured("UTF-16", conflist().decode().encode("utf-16"), gone=False),
    configured("5,000 digits", conflist()[:-1] + b', "x": -' + b"9" * 5000 + b".5e3}", gone=True),
    configured(
        "long strings and numbers", conflist(note="x" * 150_000)[:-1] + b', "x": 1' + b"0" * 100_000 + b"}", gone=True
    ),
    one("more than 256 KiB", {"10.conf": conflist(note="x" * 262_144)}, gone=False),
    one("a name with a space in front", {" 10.conf": conflist("a"), "10.conf": conflist()}, gone=False, content=b""),
    one("a name of two lines", {"1\n0.conf": conflist(), "10.conf": conflist()}, gone=False, content=b""),
    one("a name of two lines, later", {"10.conf": conflist(), "2\n.conf": conflist("a")}, gone=True, content=b""),
    # What Go may understand though we do not: the firewall plugin, or disableGC, may be in it.
    one("an obscure file", {"10.conf": conflist(), "20.conf": obscure()}, gone=False),
    one("an obscure file with a firewall", {"10.conf": conflist(), "20.conf": obscure("firewall")}, gone=False),
    one("an obscure file of another network", {"10.conf": conflist(), "20.conf": obscure("firewall", "b")}, gone=True),
    one("an obscure file with escapes", {"10.conf": conflist(), "20.conf": obscure("\\u0066irewall", "b")}, gone=False),
    one("nothing but an obscure file", {"10.conf": obscure()}, gone=False),
    one("the first half of a file", {"10.conf": WALLED[:-60]}, gone=False),
    one("the first half, and NULs", {"10.conf": WALLED[:-60] + bytes(200)}, gone=False),
    one("half a file behind", {"10.conf": conflist(), "20.conf": WALLED[:-60]}, gone=False),
    one(
        "half a file of another behind", {"10.conf": conflist(), "20.conf": conflist("b")[:60]}, gone=True, content=b""
    ),
    one("a firewall put aside", {"10-canal.conflist.cni-bak": WALLED}, gone=False),
    one("another file put aside", {"10.conf": conflist(), "1.cni-bak": conflist(), "kubeconfig": b"k8s"}, gone=True),
    one("nothing but an obscure file with disableGC", {"10.conf": obscure('", "DisableGC": true, "": "')}, gone=False),
    configured("an array", b"[" + conflist() + b"]", gone=False),
    configured("a type that is no text", conflist().replace(b"]", b', {"type": 5}]'), gone=False),
    one("a directory with a configuration's name", {"00.conf/x": b"", "10.conf": conflist()}, gone=True, content=b""),
    configured("no plugins", b'{"name": "k8s-pod-network", "plugins": []}', gone=False),
    configured("no name", b'{"type": "ptp", "ipam": {"type": "host-local"}}', gone=False),
    # No configuration, or none that can be read: only directories that hold nothing but whole CRI leases.
    one("no configuration", {}, gone=True),
    one("no configuration, and a corrupt lease", {}, gone=False, content=b""),
    one("no configuration, and the old format", {}, gone=False, content=ID.encode()),
    Case(
        "no configuration, and a mixture",
        {f"{CANAL}/10.52.0.2": LEASE, f"{CANAL}/10.52.0.3": b"mine"},
        configuration={},
    ),
    Case("no configuration, and an odd name", {f"{CANAL}/10.52.0.2": LEASE, f"{CANAL}/x": b""}, configuration={}),
    Case(
        "no configuration, several",
        {
            f"{CANAL}/10.52.0.2": LEASE,
            "networks/cbr0/10.42.0.2": LEASE,
            "networks/cbr0/10.42.0.3": b"",
            "networks/podman/10.88.0.2": LEASE,
            "networks/.hidden/10.1.0.1": LEASE,
            "networks/nerdctl-x/10.2.0.1": LEASE,
            CACHED: b"",
            f"results/cbr0-{ID}-eth0": b"",
        },
        frozenset({f"{CANAL}/10.52.0.2", CACHED}),
        {},
    ),
    one("an empty configuration", {"10-canal.conflist": b""}, gone=False),
    # What libcni remembers of a configuration that is gone.
    remembered("a plain chain", cached(conflist()), gone=True),
    remembered("a firewall", cached(WALLED), gone=False),
    remembered("disableGC", cached(conflist(disableGC=True)), gone=False),
    remembered("another network's firewall", cached(conflist("b", "firewall")), gone=True),
    remembered("multus and a firewall", cached(conflist("b", "multus", "firewall")), gone=False),
    remembered("half an entry", cached(conflist())[:60], gone=False),
    remembered("no base64", cached(conflist()).replace(b'"config": "', b'"config": "!'), gone=False),
    remembered("the old format", b'{"cniVersion": "0.2.0", "ip4": {}}', gone=False),
    Case(
        "a firewall in the cache, and a readable configuration",
        {f"{CANAL}/10.52.0.7": b"", CACHED: cached(WALLED), f"results/k8s-pod-network-{ID[::-1]}-eth0": b""},
        frozenset({f"{CANAL}/10.52.0.7", f"results/k8s-pod-network-{ID[::-1]}-eth0"}),
    ),
    one(
        "an empty configuration, and its network readable",
        {"10-canal.conflist": b"", "20-canal.conflist": conflist()},
        gone=False,
    ),
    one(
        "an empty configuration behind a good one",
        {"10-canal.conflist": conflist(), "20-x.conf": b""},
        gone=True,
        content=b"",
    ),
    # Whose the data directory is. A mark is one by its own inode number, so that what is written here is a copy.
    Case("a mark that is none", {f"{CANAL}/10.52.0.7": LEASE, "networks/.janitor-node": b"?", CACHED: b""}),
    Case(
        "a copy of another node's mark",
        {f"{CANAL}/10.52.0.7": LEASE, "networks/.janitor-node": MARK, CACHED: b""},
        frozenset({f"{CANAL}/10.52.0.7", CACHED}),
    ),
    Case(
        "a blank mark",
        {f"{CANAL}/10.52.0.7": LEASE, "networks/.janitor-node": bytes(90)},
        frozenset({f"{CANAL}/10.52.0.7"}),
    ),
    # libcni's cache.
    Case(
        "blank cache entries",
        {
            CACHED: b"",
            f"cache/{CACHED}": bytes(1517),
            f"multus/{CACHED}": b"",
            f"results/k8s-pod-network-{ID}-net1": b"\0",
            f"results/cni-loopback-{ID}-lo": b"",
            f"results/other-{ID}-eth0": b"",
            f"results/k8s-pod-network-{ID[1:]}-eth0": b"",
            f"results/k8s-pod-network-{ID}": b"",
            f"results/k8s-pod-network-x-{ID}-eth0": b"",
            "results/x": b"",
            f"results/k8s-pod-network-{ID[::-1]}-eth0": b"{}",
            f"results/k8s-pod-network-{ID}-eth2": b"\0\n",
            f"results/k8s-pod-network-{ID}-eth3": b'{"kind": "cniCacheV1", "con',
        },
        frozenset({CACHED, f"cache/{CACHED}", f"multus/{CACHED}", f"results/k8s-pod-network-{ID}-net1"}),
    ),
    Case(
        "a blank cache entry behind a firewall",
        {CACHED: b""},
        configuration={"10.conf": conflist("k8s-pod-network", "firewall")},
    ),
    Case(
        "a blank cache entry and an obscure file",
        {CACHED: b""},
        configuration={"10.conf": conflist(), "20.conf": obscure("firewall")},
    ),
)
