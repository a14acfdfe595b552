"""Our reader of systemd's files, on a disk: what is wrong in them, and where. The real systemd is in tests/system."""

from pathlib import Path
from typing import Any

import pytest

from janitor.core.model.evidence_node import Unit
from janitor.host.kubernetes.k3s_config import flat
from janitor.host.node import files_only
from janitor.host.redaction import masked, without_secrets
from janitor.host.systemd.systemd_units import read_unit

START = "ExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS\n"


def unit(tmp_path: Path, service: str, files: dict[str, str] | None = None) -> Unit:
    for path, text in {"/etc/systemd/system/kubelet.service": f"[Service]\n{service}", **(files or {})}.items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = read_unit(files_only(str(tmp_path)), "kubelet.service")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("service", "file", "sentence"),
    [
        ("Environment=X=--a=1 --b=2\n", "", "service:3: Environment=X=--a=1 --b=2: '--b=2' is not an assignment"),
        ('Environment="KUBELET_EXTRA_ARGS=--a=1\n', "", 'a " is not closed, so systemd ignores the line'),
        ("", "export KUBELET_EXTRA_ARGS=--a=1\n", "systemd does not know 'export'"),
        ("", "KUBELET_EXTRA_ARGS=--a=1 # why\n", "what follows ' #' is part of the value, not a comment"),
        ("", "KUBELET_TOKEN_X y=secret\n", "'KUBELET_TOKEN_X y=(not kept)' is not an assignment"),
        ('Environment="X=--a=1 --b=2"\nExecStart=/usr/bin/kubelet ${X}\nExecStop=', "", "${X} becomes one word"),
        ("ExecStart=/usr/bin/kubelet 'open\nExecStop=", "", "a ' is not closed, so systemd rejects the unit"),
        ("ExecStart=/usr/bin/kubelet --token=secret 'open\nExecStop=", "", "--token=(not kept)"),
        ("ExecStart=/bin/a ; /bin/b\nExecStop=", "", "it contains two commands"),
    ],
)  # fmt: skip
def test_complaints(tmp_path: Path, service: str, file: str, sentence: str) -> None:
    start = "" if "ExecStart" in service else START
    found = unit(tmp_path, f"{start}{service}\nEnvironmentFile=-/etc/default/kubelet\n", {"/etc/default/kubelet": file})
    assert any(sentence in complaint for complaint in found.complaints), found.complaints
    assert "secret" not in repr(found)


def test_files_that_are_missing_or_many(tmp_path: Path) -> None:
    files = {"/etc/kubelet.d/b.env": "KUBELET_EXTRA_ARGS=--b\n", "/etc/kubelet.d/a.env": "KUBELET_EXTRA_ARGS=--a\n"}
    found = unit(tmp_path, f"{START}EnvironmentFile=-/etc/nowhere\nEnvironmentFile=/etc/kubelet.d/*.env\n", files)
    assert [(f.path, f.state) for f in found.environment_files] == [
        ("/etc/nowhere", "missing"), ("/etc/kubelet.d/a.env", "read"), ("/etc/kubelet.d/b.env", "read"),
    ]  # fmt: skip
    assert found.argv == ("/usr/bin/kubelet", "--b")


@pytest.mark.parametrize(
    "content", ["", "[Service]", "nonsense", "[Service]\nExecStart=\n", "\0\0", "[Unit]\nA=\\\n\\\n"]
)
def test_no_service(tmp_path: Path, content: str) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/kubelet.service").write_text(content)
    assert read_unit(files_only(str(tmp_path)), "kubelet.service") is None
    assert read_unit(files_only(str(tmp_path)), "other.service") is None


def test_a_masked_unit(tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/kubelet.service").symlink_to("/dev/null")
    assert read_unit(files_only(str(tmp_path)), "kubelet.service") is None


@pytest.mark.parametrize(
    "text",
    [
        "server  \t'--token' \t'LEAK'", "--bootstrap-token  LEAK", "--vpn-auth name=tailscale,joinKey=LEAK",
        "--datastore-endpoint=postgres://u:LEAK/x@h/db", "postgres://u:LEAK/x@h", "sh -c 'exec ccm --token LEAK --v=2'",
        "KUBELET_EXTRA_ARGS=--v=2 --token=LEAK", "FOO=bar MY_PASSWORD=LEAK", "export HTTP_PROXY=http://u:LEAK@p",
    ],
)  # fmt: skip
def test_no_secret_stays_in_free_text(text: str) -> None:
    assert "LEAK" not in masked(text)
    assert "LEAK" not in " ".join(without_secrets([word.strip("'") for word in text.split()]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vpn-auth", "name=tailscale,joinKey=LEAK"), ("datastore-endpoint", "postgres://u:LEAK@h/db"),
        ("kube-apiserver-extra-env", ["HTTP_PROXY=http://u:LEAK@p"]), ("nested", {"password": "LEAK"}),
        ("etcd-arg", [{"x": "LEAK"}]),
    ],
)  # fmt: skip
def test_no_secret_stays_in_settings(key: str, value: Any) -> None:
    merged: dict[str, tuple[Any, str]] = {key: (value, "config.yaml")}
    assert "LEAK" not in str(flat(merged, "k3s"))


@pytest.mark.parametrize(
    ("part", "number"), [("a", 1 << 20), ("token", 1 << 18), ("://", 1 << 18), ("token ", 1 << 18)]
)
def test_a_text_takes_no_longer_than_it_is_long(part: str, number: int) -> None:
    """Any pod may call itself cluster-autoscaler, with any arguments."""
    text = part * number  # with the square of its length this would take minutes, with its cube days
    assert len(without_secrets([text])) == 1


def test_what_is_no_secret_stays() -> None:
    text = "kubelet --authorization-mode=Webhook --tls-private-key-file=/etc/k.key --node-ip=10.0.0.1"
    assert masked(text) == text
