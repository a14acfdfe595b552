"""docs/janitor.toml has every setting at its default, docs/profiles.d every key; every link leads somewhere."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import yaml

from janitor.commands.run import _settings
from janitor.config import Config, Rules, Scope, load
from janitor.core.model.finding_ids import Family, FindingId
from janitor.core.model.routing import Profile
from janitor.core.model.rules import PolicyRule
from janitor.core.rules.profiles import profile_of
from janitor.host import profiles
from janitor.report.findings_page import markdown
from tests.lab.cache import REPOSITORY

SETTINGS = REPOSITORY / "docs/janitor.toml"
SHIPPED = REPOSITORY / "agent/janitor/core/rules/shipped"
_SETTING = re.compile(r"^#(?=[\w-]+ = )", re.MULTILINE)


def uncommented() -> str:
    return _SETTING.sub("", SETTINGS.read_text())


@pytest.fixture
def every(tmp_path: Path) -> Path:
    """The file as it is when somebody takes all of the # away."""
    file = tmp_path / "janitor.toml"
    file.write_text(uncommented())
    return file


def test_every_setting_is_in_the_document_once() -> None:
    document = tomllib.loads(uncommented())  # twice would be an error
    assert document.keys() == set(Config.__struct_fields__)
    assert document["rules"].keys() == set(Rules.__struct_fields__)
    assert document["scope"].keys() == set(Scope.__struct_fields__)
    assert tomllib.loads(SETTINGS.read_text()) == {"checks": {}, "scope": {}, "rules": {"protocol": {}}}, (
        "a # is missing"
    )


def test_what_it_says_is_the_default(every: Path) -> None:
    assert load(SETTINGS) == Config()
    said = load(every)
    tables = ("checks", "rules")  # by default nothing is in them
    for name in Config.__struct_fields__:
        assert name in tables or getattr(said, name) == getattr(Config(), name), name
    # What is said in the tables is in force without them.
    assert profiles.load(said.rules.profiles, said.rules.protocol) == profiles.load()
    parts = frozenset(("leases", "rules"))
    assert _settings(said, parts, observe=False) == _settings(Config(), parts, observe=False)


def test_each_setting_has_its_comment() -> None:
    """A paragraph of comment before each setting, or before the table that it is in."""
    lines = SETTINGS.read_text().splitlines()
    for number, line in enumerate(lines):
        if _SETTING.match(line):
            before = lines[number - 1]
            assert before.startswith(("# ", "[")) or _SETTING.match(before), line


def test_how_observe_mode_and_durable_go_together() -> None:
    """As docs/janitor.toml and docs/daemon.md say it."""
    table = (REPOSITORY / "docs/daemon.md").read_text()
    assert '| `mode = "observe"` | reported | repaired | syncs:' in table
    assert "| `janitor run --observe` | reported | reported | off |" in table
    parts = frozenset(("leases", "rules"))
    observing = Config(mode="observe", checks={"LEASE009": "repair", "rules": "repair"})
    settings = _settings(observing, parts, observe=False)
    assert (settings.policy.findings, settings.repair_rules, settings.durable) == (frozenset({"LEASE009"}), True, True)
    flag = _settings(observing, parts, observe=True)
    assert (flag.policy.findings, flag.repair_rules, flag.durable) == (frozenset(), False, False)


def test_the_document_of_findings_is_made_from_the_table() -> None:
    """After a change of the table: make docs."""
    text = (REPOSITORY / "docs/findings.md").read_text()
    assert text == markdown()
    assert re.findall(r"^\| ([A-Z]+\d+) \|", text, re.MULTILINE) == list(FindingId)
    assert "](docs/findings.md)" in (REPOSITORY / "README.md").read_text()


# Profiles.


def keys(kind: Any) -> dict[str, Any]:
    """The names of a dataclass's fields, and those of the dataclasses in them."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        parts = [hint, *(() if isinstance(hint, types.UnionType) else get_args(hint))]
        inner = [keys(part) for part in parts if dataclasses.is_dataclass(part)]
        found[name] = inner[0] if inner else None
    return found


def given(value: Any) -> dict[str, Any] | None:
    """The same of what was read; of several [[rules]] together."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {name: given(one[name]) for one in value for name in one}
    if isinstance(value, dict) and not any(key in ("4", "6") for key in value):
        return {name: given(inner) for name, inner in value.items()}
    return None


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setattr(profiles, "OWN", REPOSITORY / "docs/profiles.d")
    return next(profile for profile in profiles.load(("example-vpn",)) if profile.name == "example-vpn")


def test_the_example_has_every_key_of_a_profile() -> None:
    assert given(tomllib.loads((REPOSITORY / "docs/profiles.d/example.toml").read_text())) == keys(Profile)


def test_the_example_is_off_and_says_the_defaults_where_it_says_so(example: Profile) -> None:
    text = (REPOSITORY / "docs/profiles.d/example.toml").read_text()
    said = dict(re.findall(r"^(\w+) = .*# .*\[(\S+)\]$", text, re.MULTILINE))
    plain = Profile("x", "x")
    assert {name: msgspec.json.decode(value) for name, value in said.items()} == {
        name: getattr(plain, name) for name in ("enabled", "dynamic", "protocol")
    }
    assert not tomllib.loads(text)["enabled"]


def test_the_example_matches_what_its_comments_say(example: Profile) -> None:
    marked = (("fwmark", "0xca6c"), ("suppress_prefixlength", "0"))
    rule = PolicyRule(4, 150, 0, marked, "lookup", 51820, b"")
    assert profile_of(rule, [example]) == (example, example.rules[0])
    for other in (
        dataclasses.replace(rule, table=254),
        dataclasses.replace(rule, priority=200),
        dataclasses.replace(rule, selectors=(("from", "10.0.0.0/8"), *marked)),
        dataclasses.replace(rule, selectors=marked[:1]),
        dataclasses.replace(rule, selectors=marked[1:]),
        dataclasses.replace(rule, protocol=2),  # the kernel's
    ):
        assert profile_of(other, [example]) is None
    from_pods = PolicyRule(4, 9, 0, (("from", "10.52.0.0/24"),), "lookup", 51821, b"")
    assert profile_of(from_pods, [example]) == (example, example.rules[1])


def test_every_row_of_the_threat_table_has_tests_that_exist() -> None:
    tests = "\n".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^ *def (test_\w+)", tests, re.MULTILINE))
    rows = [line for line in (REPOSITORY / "docs/security.md").read_text().splitlines() if line.startswith("| ")]
    facts = [row.split(" | ") for row in rows if row.count(" | ") == 5 and not row.startswith("| fact")]
    assert len(facts) > 20
    for row in facts:
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert named, row[0]
        assert set(named) <= there, set(named) - there


# Links and lengths.

GENERATED = {"docs/findings.md", "docs/log-events.md"}
DOCUMENTS = [
    path
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/*.md", "*/README.md")
    for path in sorted(REPOSITORY.glob(name))
    if path.relative_to(REPOSITORY).parts[0] in ("docs", "systemd", "cloud-init", "kubernetes", path.name)
]
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to the headings of a document."""
    text = _FENCED.sub("", document.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_documents_with_links_are_all_there() -> None:
    names = {str(path.relative_to(REPOSITORY)) for path in DOCUMENTS}
    assert names >= {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/daemon.md", "docs/security.md"}
    assert names >= {f"{room}/README.md" for room in ("systemd", "cloud-init", "kubernetes")}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", document.read_text()))
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.is_relative_to(REPOSITORY), target
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_document_is_within_reach_of_the_readme() -> None:
    reached = {REPOSITORY / "README.md"}
    todo = list(reached)
    while todo:
        document = todo.pop()
        for target in re.findall(r"\]\(([^)\s#:]+\.md)[^)]*\)", document.read_text()):
            file = (document.parent / target).resolve()
            if file not in reached:
                reached.add(file)
                todo.append(file)
    assert set(DOCUMENTS) <= reached


def test_the_readme_and_each_document_are_short() -> None:
    for document in DOCUMENTS:
        name = str(document.relative_to(REPOSITORY))
        lines = len(document.read_text().splitlines())
        if name == "README.md":
            assert lines <= 200
        elif name.startswith("docs/") and name not in GENERATED:
            assert lines < 150, name


def test_the_kustomization_of_the_readme_names_what_there_is() -> None:
    text = (REPOSITORY / "README.md").read_text()
    [document] = re.findall(r"<<'YAML'\n(.*?)^YAML$", text, re.MULTILINE | re.DOTALL)
    kustomization = yaml.safe_load(document)
    for resource in kustomization["resources"]:
        assert (REPOSITORY / "mine" / resource).resolve().is_dir()
    named = set(re.findall(r"overlays/(\w+)\]", document)) | set(re.findall(r"[a-z]\w+", document.split("# or ")[1]))
    overlays = {path.name for path in (REPOSITORY / "kubernetes/overlays").iterdir()}
    assert overlays <= named
    [image] = kustomization["images"]
    assert image["name"] == "janitor"
    assert f"{image['newName']}:{image['newTag']}" in text


def test_the_document_of_commands_names_every_family() -> None:
    text = (REPOSITORY / "docs/commands.md").read_text()
    [sentence] = re.findall(r"^`--only` takes IDs and families, separated by commas: ([^.]+)\.", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", sentence)) == {family.word for family in Family}


def test_the_document_of_rules_names_every_profile_that_comes_with_janitor() -> None:
    text = (REPOSITORY / "docs/policy-rules.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \| (on|off) \|$", text, re.MULTILINE))
    names = {tomllib.loads(path.read_text())["name"] for path in SHIPPED.glob("*.toml")}
    on = {profile.name for profile in profiles.load() if profile.enabled}
    assert rows == {name: "on" if name in on else "off" for name in names}
