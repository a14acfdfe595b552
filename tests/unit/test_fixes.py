"""Fixes: what people read, what can be pasted, and how a terminal breaks it. No value of the node ends a command."""

import ast
import json
import shlex
import subprocess

import pytest

from janitor.core.model.fix import NEW_LINE, Command, File, Fix, Patch, Snippet
from janitor.report.finding_row import FixRow, PartRow, fix_row
from janitor.report.fixes import fix_lines
from tests.lab.cache import REPOSITORY

KUBE_HETZNER = "kubectl -n kube-system rollout restart deployment hcloud-cloud-controller-manager"
GOLDEN = {
    f["fix"]["text"]: FixRow(
        f["fix"]["text"],
        tuple(f["fix"]["commands"]),
        tuple(f["fix"]["patches"]),
        tuple(PartRow(**part) for part in f["fix"]["parts"]),
    )
    for file in (REPOSITORY / "tests/golden").glob("*.json")
    for f in json.loads(file.read_text())["findings"]
}
FIXES = [GOLDEN[text] for text in sorted(GOLDEN)]
HOSTILE = ["a b", "x; touch /tmp/y", "$(touch y)", "`touch y`", "a'b", 'a"b', "a\nb", "-rf", "a&b|c>d", "~", "*", "ü…"]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("fix", FIXES)
def test_of_every_golden_node(fix: FixRow, width: int) -> None:
    lines = fix_lines(fix, width)
    assert " ".join(" ".join(lines).split()) == " ".join(f"Fix: {fix.text}".split()), "nothing is lost"
    assert "".join(part.text for part in fix.parts) == fix.text
    for part in fix.parts:
        if part.kind in ("command", "snippet"):
            assert any(part.text in line for line in lines), f"{part.text} was broken"
        if part.kind in ("file", "patch"):
            assert [f"  {line}" for line in part.text.splitlines()] == [x for x in lines if x[2:] in part.text]


def test_at_80_columns_only_commands_are_longer() -> None:
    longer = [line.strip() for fix in FIXES for line in fix_lines(fix, 80) if len(line) > 80]
    assert longer == [f"{KUBE_HETZNER}."]


@pytest.mark.parametrize(
    ("fix", "unbroken"),
    [
        (Fix.of("x " * 20 + "restart the pod: ", Command.of("kubectl", "delete", "pod", "-n", "shop", "api-0"),
                "; or wait"), "kubectl delete pod -n shop api-0"),
        (Fix.of("x " * 20, Command("journalctl -u kubelet | grep -i -e csinode -e 'connection refused'")),
         "journalctl -u kubelet | grep -i -e csinode -e 'connection refused'"),
        (Fix.of("x " * 20 + "or by hand: ", Command("crictl stopp ID && crictl rmp ID")),
         "crictl stopp ID && crictl rmp ID"),
        (Fix.of("in /etc/default/kubelet, add to KUBELET_EXTRA_ARGS: ",
                Snippet("--a-long-flag=1 --node-ip 10.0.0.3 --b"), NEW_LINE, "then: ", Command("reboot")),
         "--a-long-flag=1 --node-ip 10.0.0.3 --b"),
        (Fix.of("x " * 20 + "('", Command("janitor clean --only rules --dry-run"), "' says why)"),
         "'janitor clean --only rules --dry-run'"),
        (Fix.of("by hand:", NEW_LINE, Command("ip rule add from 10.244.0.0/24 lookup 77 priority 32765", "and so on")),
         "ip rule add from 10.244.0.0/24 lookup 77 priority 32765    # and so on"),
    ],
)  # fmt: skip
def test_what_is_pasted_stays_on_one_line(fix: Fix, unbroken: str) -> None:
    for width in range(20, 100):
        lines = fix_lines(fix_row(fix), width)
        assert any(unbroken in line for line in lines), lines
        assert width < 40 or len(lines) > 1 or len(lines[0]) <= width


def test_files_are_as_they_are() -> None:
    unit = (
        "[Unit]\nDescription=something that is long, longer than the terminal is wide; and so on\n\n[Mount]\nWhat=tmpfs"
    )
    fix = Fix.of("Save this as /etc/systemd/system/x.mount", File("/etc/systemd/system/x.mount", unit), "then reboot")
    assert fix_lines(fix_row(fix), 40)[-6:] == [*(f"  {line}" for line in unit.splitlines()), "  then reboot"]
    assert fix.text == f"Save this as /etc/systemd/system/x.mount\n{unit}\nthen reboot"


def test_what_a_document_has_of_it() -> None:
    patch = Patch("/etc/x", "--- a/etc/x\n+++ b/etc/x\n")
    row = fix_row(Fix.of(Command("patch -p1 -d /"), ":", patch, "then: ", Command("reboot", "it takes a minute")))
    assert row.text == f"patch -p1 -d /:\n{patch.text}then: reboot    # it takes a minute"
    assert (row.commands, row.patches) == (("patch -p1 -d /", "reboot"), (patch.text,))
    assert [(part.kind, part.path) for part in row.parts if part.path] == [("patch", "/etc/x")]


def test_nothing_in_it_paints_the_terminal() -> None:
    assert fix_lines(fix_row(Fix.of("remove /a\x1b[31m/b\nand c")), 80) == ["  Fix: remove /a\\x1b[31m/b\\nand c"]
    assert fix_lines(fix_row(Fix.of(Command.of("rm", "/a\x1b[31m"))), 80) == ["  Fix: rm '/a\\x1b[31m'"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_word_of_a_command_is_one_word_for_a_shell(name: str) -> None:
    command = Command.of("printf", r"%s\n", name).and_then(Command.of("printf", "%s", name).into(Command("cat")))
    done = subprocess.run(["sh", "-c", command.shell], capture_output=True, text=True, check=True)
    assert done.stdout == f"{name}\n{name}"


def test_a_command_is_either_a_literal_or_quoted() -> None:
    """Whoever passes a text made of values to Command() goes around the quoting."""
    for file in (REPOSITORY / "agent/janitor").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Command" and file.name != "fix.py":
                assert all(isinstance(value, ast.Constant) for value in (*call.args, *call.keywords)), file


def test_quoting_is_that_of_a_shell() -> None:
    assert shlex.split(Command.of("rm", *HOSTILE).shell) == ["rm", *HOSTILE]
