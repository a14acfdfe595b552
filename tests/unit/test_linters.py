"""The linters are tests: what `make lint` says fails here too. And what is generated is what would be generated."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from janitor.host.runtime import containerd_pb2, cri_pb2
from janitor.report import cidr_document
from janitor.report.document import schema

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    ["ruff check .", "ruff format --check .", "mypy", "lint-imports --no-cache"],
)
def test_linter(command: str) -> None:
    words = command.split()
    done = subprocess.run([BIN / words[0], *words[1:]], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="grpcio-tools of these protos has no wheel for this Python")
@pytest.mark.parametrize("module", [cri_pb2, containerd_pb2], ids=["cri", "containerd"])
def test_stubs_are_those_of_the_protos(module: Any, tmp_path: Path) -> None:
    """Compared as descriptors: the text of generated code differs between generators, the messages do not."""
    name = module.DESCRIPTOR.name.rpartition("/")[2]
    out = tmp_path / "descriptors"
    argv = [str(BIN / "python"), "-W", "ignore", "-m", "grpc_tools.protoc", f"-Ijanitor/host={REPOSITORY / 'protos'}",
            f"--descriptor_set_out={out}", str(REPOSITORY / "protos" / name)]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    (compiled,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    committed = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(committed)
    for file in (compiled, committed):
        file.name = name
        for message in file.message_type:
            _forget_json_names(message)
    assert committed == compiled


def _forget_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _forget_json_names(nested)


def test_the_shipped_schema_is_that_of_the_types() -> None:
    assert (REPOSITORY / "agent/janitor/report/schema.json").read_bytes() == schema()
    assert (REPOSITORY / "agent/janitor/report/cidr.schema.json").read_bytes() == cidr_document.schema()


HELP = {
    "scan": "commands", "explain": "commands", "clean": "commands", "undo": "commands",
    "run": "daemon", "boot": "boot-stage",
}  # fmt: skip


@pytest.mark.parametrize(("command", "document"), HELP.items())
def test_the_documents_show_the_real_help(command: str, document: str) -> None:
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "100", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([BIN / "janitor", command, "--help"], capture_output=True, text=True, env=environment)
    text = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    assert text in (REPOSITORY / f"docs/{document}.md").read_text()


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    this = Path(__file__).relative_to(REPOSITORY)
    for name in listed.splitlines():
        if name in (str(this), "LICENSE") or not (REPOSITORY / name).is_file():
            continue
        text = (REPOSITORY / name).read_text(errors="replace")
        for word in ("pypi.org", "pythonhosted", "deb.debian.org", "registry.npmjs", "/opt/pypi", "file:///"):
            assert word not in text, f"{name} names {word}"
        assert not re.search(r"(?<!\w)/root/", text), f"{name} names somebody's home"  # /proc/1/root/ is nobody's


def test_architecture_is_short() -> None:
    assert len((REPOSITORY / "ARCHITECTURE.md").read_text().splitlines()) < 150
