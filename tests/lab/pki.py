"""The certificates of a cluster of the lab, in kubeadm's layout, made by openssl."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def missing() -> str | None:
    """Why no certificate can be made here, or None."""
    return None if shutil.which("openssl") else "not installed: openssl (apt-get install openssl)"


def make_ca(directory: Path) -> None:
    """ca.crt and ca.key, and sa.key and sa.pub for service account tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    ca = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=kubernetes", "-days", "30"]
    _openssl(directory, "req", "-x509", *_NEW_KEY, *ca)
    _openssl(directory, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", "sa.key")
    _openssl(directory, "pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def sign(directory: Path, name: str, subject: str, *alternatives: str) -> None:
    """NAME.crt and NAME.key for a subject like /O=system:masters/CN=admin, and for names like IP:192.0.2.10."""
    extensions = directory / f"{name}.ext"
    names = ",".join(alternatives) or f"DNS:{name}"
    extensions.write_text(f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n")
    _openssl(directory, "req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
    ca = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"]
    request = ["-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", extensions.name]
    _openssl(directory, "x509", "-req", *ca, *request)


def kubeconfig(server: str, directory: str, name: str) -> Mapping[str, Any]:
    """A kubeconfig for the certificate NAME in `directory`, with paths as the node sees them."""
    cluster = {"server": server, "certificate-authority": f"{directory}/ca.crt"}
    user = {"client-certificate": f"{directory}/{name}.crt", "client-key": f"{directory}/{name}.key"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
    }


def write_kubeconfig(path: Path, server: str, directory: str, name: str) -> None:
    path.write_text(json.dumps(kubeconfig(server, directory, name), indent=2) + "\n")


def _openssl(directory: Path, *words: str) -> None:
    done = subprocess.run(["openssl", *words], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]} in {directory}: {done.stderr.strip()}")
