"""Renders kubernetes/ like `kubectl kustomize`, for machines without kubectl. Supports only what is used there.

That is resources, components, JSON 6902 patches of `add`, `remove` and `replace`, images, and ConfigMaps of files with
the hash in their names; anything else is an error. A test compares it with the real one if that is installed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from tests.lab.cache import REPOSITORY

KUBERNETES = REPOSITORY / "kubernetes"
Object = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "resources", "components", "patches", "configMapGenerator", "images"}


def overlays() -> list[str]:
    """The names of the overlays."""
    return sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))


def render(directory: Path) -> list[Object]:
    """All objects of a kustomization, in no particular order."""
    objects = _collect(directory, [])
    _name(objects)
    return objects


def _collect(directory: Path, objects: list[Object]) -> list[Object]:
    """The objects of `directory`; a component modifies the existing ones."""
    document = _load(directory / "kustomization.yaml")[0]
    if unknown := document.keys() - _KNOWN:
        raise ValueError(f"{directory}: this renderer does not know {', '.join(sorted(unknown))}")
    for name in document.get("resources", []):
        path = (directory / name).resolve()
        objects += _collect(path, []) if path.is_dir() else _load(path)
    objects += [_config_map(directory, wanted) for wanted in document.get("configMapGenerator", [])]
    for name in document.get("components", []):
        _collect((directory / name).resolve(), objects)
    for patch in document.get("patches", []):
        operations = _load(directory / patch["path"])[0]
        for target in _targets(objects, patch["target"]):
            for operation in operations:
                _patch(target, operation)
    for image in document.get("images", []):
        for container in _containers(objects):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    return objects


def _load(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def _targets(objects: list[Object], wanted: dict[str, str]) -> list[Object]:
    found = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (wanted["kind"], wanted["name"])]
    if not found:
        raise ValueError(f"nothing to patch: there is no {wanted['kind']} {wanted['name']}")
    return found


def _patch(target: Any, operation: dict[str, Any]) -> None:
    """One operation of RFC 6902."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in parents:
        target = target[int(part) if isinstance(target, list) else part]
    if operation["op"] == "remove":
        del target[int(last) if isinstance(target, list) else last]
    elif operation["op"] == "add" and isinstance(target, list):
        target.insert(len(target) if last == "-" else int(last), operation["value"])
    elif operation["op"] in ("add", "replace"):
        target[int(last) if isinstance(target, list) else last] = operation["value"]
    else:
        raise ValueError(f"this renderer does not know the operation {operation['op']}")


def _config_map(directory: Path, wanted: dict[str, Any]) -> Object:
    options = wanted.get("options", {})
    metadata = {"name": wanted["name"], "namespace": wanted["namespace"]}
    if "labels" in options:
        metadata["labels"] = options["labels"]
    data = {Path(name).name: (directory / name).read_text() for name in wanted["files"]}
    hashed = not options.get("disableNameSuffixHash", False)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "_hashed": hashed}


def _name(objects: list[Object]) -> None:
    """Give generated ConfigMaps their names, and update the references to them."""
    names: dict[str, str] = {}
    for one in objects:
        if one.pop("_hashed", False):
            name = one["metadata"]["name"]
            names[name] = one["metadata"]["name"] = f"{name}-{_hash(one['data'])}"
    for one in objects:
        for volume in _pod(one).get("volumes", []):
            if "configMap" in volume:
                volume["configMap"]["name"] = names.get(volume["configMap"]["name"], volume["configMap"]["name"])


def _hash(data: dict[str, str]) -> str:
    """kustomize's hash (sigs.k8s.io/kustomize/api/hasher): of Go's JSON, with replacements that prevent words."""
    text = json.dumps({"data": data, "kind": "ConfigMap", "name": ""}, separators=(",", ":"), sort_keys=True,
                      ensure_ascii=False)  # fmt: skip
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(str.maketrans("013ae", "ghkmt"))


def _pod(one: Object) -> Object:
    found: Object = one.get("spec", {}).get("template", {}).get("spec", {})
    return found


def _containers(objects: list[Object]) -> list[Object]:
    return [container for one in objects for container in _pod(one).get("containers", [])]
