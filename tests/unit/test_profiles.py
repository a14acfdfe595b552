"""Profiles: those that come with janitor are read, and one that cannot be used is said to be so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from janitor.host import profiles


def test_those_that_come_with_janitor() -> None:
    found = {profile.name: profile for profile in profiles.load()}
    assert set(found) == {
        "aws-vpc-cni", "cilium", "generic", "kube-router", "submariner", "tailscale", "wg-quick",
    }  # fmt: skip
    assert [name for name, profile in found.items() if profile.enabled] == ["kube-router"]
    assert list(found)[-1] == "generic"
    assert all(profile.title and profile.rules for profile in found.values())


def test_what_the_configuration_says() -> None:
    found = {p.name: p for p in profiles.load(("generic",), {"generic": "kernel"})}
    assert (found["kube-router"].enabled, found["generic"].enabled) == (False, True)
    assert found["generic"].protocol == "kernel"
    with pytest.raises(
        profiles.ProfileError,
        match=r"unknown profile 'kube-ruter' \(did you mean 'kube-router'\?\); the profiles are aws",
    ):
        profiles.load(("kube-ruter",))


def test_the_operators_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "OWN", tmp_path)
    (tmp_path / "mine.toml").write_text('name = "kube-router"\ntitle = "mine"\n[[rules]]\ntable = [7]\n')
    assert next(p for p in profiles.load() if p.name == "kube-router").title == "mine"


def test_the_operators_own_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kubelet lays out a ConfigMap's item with the path profiles.d/mine.toml."""
    (tmp_path / "..2026/profiles.d").mkdir(parents=True)
    (tmp_path / "..2026/profiles.d/mine.toml").write_text('name = "mine"\ntitle = "mine"\n[[rules]]\ntable = [7]\n')
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "profiles.d").symlink_to("..data/profiles.d")
    monkeypatch.setattr(profiles, "OWN", tmp_path / "profiles.d")
    assert "mine" in {profile.name for profile in profiles.load()}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('name = "x"\ntitle = "x"\ntabel = 7\n', "unknown setting 'tabel'"),
        ('name = "x"\ntitle = "x"\nenable = true\n', r"unknown setting 'enable' \(did you mean 'enabled'\?\)"),
        ('name = "x"\ntitle = "x"\n[[rules]]\nprio = 7\n', r"unknown setting 'prio' \(did you mean 'priority'\?\)"),
        ('name = "x"\n', "title"),
        ('name = "x"\ntitle = "x"\n[alive]\nlink = "tun-["\n', "unterminated character set"),
        ('name = "x"\ntitle = "x"\n[[rules]]\nsource = "pods"\n', "pods"),
        ("a=" + "[" * 3000, "nested too deeply|Invalid"),
        ("name = \x00", "reading the profile"),
    ],
)
def test_what_is_no_profile(text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "OWN", tmp_path)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(profiles.ProfileError, match=why):
        profiles.load()


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "OWN", tmp_path)
    os.mkfifo(tmp_path / "mine.toml")
    with pytest.raises(profiles.ProfileError, match="not a regular file"):
        profiles.load()
