"""The pause image of the lab's pods: one layer with one static program, written byte by byte.

It needs neither a compiler nor a registry. The program sleeps until it is killed, which is enough for a pod sandbox:
containerd ends a sandbox with SIGKILL.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile
from typing import Any

NAME = "localhost/pause:lab"

# machine -> (ELF machine number, OCI architecture, code: the system call that sleeps, in a loop)
_MACHINES = {
    "x86_64": (62, "amd64", bytes.fromhex("b822000000 0f05 ebf7")),  # pause(2) is 34
    "aarch64": (
        183,
        "arm64",
        # There is no pause(2) here, so this is ppoll(NULL, 0, NULL, NULL), which is 73.
        struct.pack("<7I", 0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001, 0x17FFFFFA),
    ),
}


def program(machine: str) -> bytes:
    """The smallest ELF file that the kernel runs: a header, one segment, the code."""
    number, _, code = _MACHINES[machine]
    base, header, segment = 0x400000, 64, 56
    size = header + segment + len(code)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian, version 1; struct pads with NUL
        2,  # an executable with fixed addresses
        number,
        1,
        base + header + segment,  # the entry point
        header,
        0,
        0,
        header,
        segment,
        1,
        64,
        0,
        0,
    )
    # Read and execute; 64 KiB alignment, for kernels with large pages.
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000)
    return elf + load + code


def archive(machine: str | None = None) -> bytes:
    """The image as an OCI archive, for `ctr images import`; the bytes are reproducible."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise RuntimeError(f"the lab has no pause program for {machine}; add its code to {__file__}")
    architecture = _MACHINES[machine][1]
    layer = _tar({"pause": program(machine)}, mode=0o755)
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/pause"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest) | {
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {
            "io.containerd.image.name": NAME,
            "org.opencontainers.image.ref.name": NAME.rpartition(":")[2],
        },
    }
    blobs = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (layer, config, manifest)}
    index = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
    }
    return _tar(index | blobs, mode=0o644)


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()
