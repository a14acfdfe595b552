"""kubernetes/: every overlay, with and without the components, is what Kubernetes takes; what janitor is given."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from janitor.host.runtime.sockets import CRI
from tests.lab.cache import REPOSITORY
from tests.lab.kustomize import KUBERNETES, Object, overlays, render

COMPONENTS = ("monitoring", "dashboard")
WITHOUT_OPERATOR = ("prometheus", "dashboard")
VERSIONS = ("1.30", "1.37")  # appArmorProfile came with 1.30

# Neither Kubernetes nor a package has schemas of the Prometheus operator's kinds: the part of their CRDs that is used.
_MATCH = {"type": "object", "required": ["matchLabels"], "additionalProperties": False,
          "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}}}  # fmt: skip
_RELABELING = {
    "type": "object", "additionalProperties": False,
    "properties": {"sourceLabels": {"type": "array", "items": {"type": "string"}}, "targetLabel": {"type": "string"}},
}  # fmt: skip
_ENDPOINT = {
    "type": "object", "additionalProperties": False,
    "properties": {"port": {"type": "string"}, "interval": {"type": "string", "pattern": "^[0-9]+s$"},
                   "relabelings": {"type": "array", "items": _RELABELING}},
}  # fmt: skip
_RULE = {
    "type": "object", "required": ["expr", "alert"], "additionalProperties": False,
    "properties": {"alert": {"type": "string"}, "expr": {"type": "string"}, "for": {"type": "string"},
                   "labels": {"type": "object"}, "annotations": {"type": "object"}},
}  # fmt: skip
_GROUP = {"type": "object", "required": ["name", "rules"], "additionalProperties": False,
          "properties": {"name": {"type": "string"}, "rules": {"type": "array", "items": _RULE}}}  # fmt: skip
OPERATOR = {
    "PodMonitor": {
        "type": "object", "required": ["selector", "podMetricsEndpoints"], "additionalProperties": False,
        "properties": {"selector": _MATCH, "podMetricsEndpoints": {"type": "array", "items": _ENDPOINT}},
    },
    "PrometheusRule": {
        "type": "object", "required": ["groups"], "additionalProperties": False,
        "properties": {"groups": {"type": "array", "items": _GROUP}},
    },
}  # fmt: skip


def with_components(tmp_path: Path, overlay: str, components: tuple[str, ...] = COMPONENTS) -> Path:
    """What somebody writes who wants everything: an overlay, the components, an image of their own."""
    directory = tmp_path / "-".join(("mine", *components))
    directory.mkdir()
    if not (tmp_path / "kubernetes").exists():
        shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [f"../kubernetes/overlays/{overlay}"],
        "components": [f"../kubernetes/components/{name}" for name in components],
        "images": [{"name": "janitor", "newName": "registry.example.com/janitor", "newTag": "0.1.0"}],
    }  # fmt: skip
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return directory


def valid(one: Object, version: str) -> None:
    """ValidationError where Kubernetes of this version would not have it; no field may be unknown."""
    if one["kind"] in OPERATOR:
        assert one["apiVersion"] == "monitoring.coreos.com/v1"
        jsonschema.validate(one["spec"], OPERATOR[one["kind"]])
    else:
        kubernetes_validate.validate(one, version, strict=True)


def pod(objects: list[Object]) -> Object:
    found: Object = next(o for o in objects if o["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(tmp_path: Path, version: str) -> None:
    different: dict[str, Object] = {}
    for overlay in overlays():
        there = tmp_path / overlay
        there.mkdir()
        for objects in (
            render(KUBERNETES / "overlays" / overlay),
            render(with_components(there, overlay)),
            render(with_components(there, overlay, WITHOUT_OPERATOR)),
        ):
            assert {"Namespace", "ServiceAccount", "ConfigMap", "DaemonSet"} <= {one["kind"] for one in objects}
            different |= {json.dumps(one, sort_keys=True): one for one in objects}
    assert len(different) == 3 * (len(overlays()) - 1) + 7  # k3s and RKE2 are alike
    for one in different.values():
        valid(one, version)


def test_what_is_wrong_is_found() -> None:
    """The checks above can fail."""
    for spoil in ("privileged", "hostPid", "containers"):
        objects = render(KUBERNETES / "overlays/kubeadm")
        spec = pod(objects)
        if spoil == "privileged":
            spec["containers"][0]["securityContext"]["privileged"] = "no"
        elif spoil == "hostPid":
            spec["hostPid"] = True
        else:
            del spec["containers"]
        with pytest.raises(kubernetes_validate.ValidationError):
            for one in objects:
                valid(one, "1.37")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"selector": {}, "podMetricsEndpoints": [{"ports": "x"}]}, OPERATOR["PodMonitor"])


# Debian 12 has no kustomize, and its kubectl (1.20, kustomize 2.0) knows neither components nor such patches, so CI
# cannot be asked for the real one. What that made of a kustomization with all that ours has is kept instead.
GOLDEN = REPOSITORY / "tests/golden/kustomize"
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to compare with")


def same(ours: list[Object], theirs: str) -> None:
    def order(one: Object) -> tuple[str, str]:
        return one["kind"], one["metadata"]["name"]

    assert sorted(ours, key=order) == sorted(yaml.safe_load_all(theirs), key=order)


def kubectl(directory: Path) -> str:
    words = ["kubectl", "kustomize", str(directory)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_our_renderer_makes_what_kubectl_made() -> None:
    """kubectl 1.32, with kustomize 5.5: `kubectl kustomize tests/golden/kustomize/overlay`."""
    same(render(GOLDEN / "overlay"), (GOLDEN / "expected.yaml").read_text())


@needs_kubectl
def test_kubectl_still_makes_it() -> None:
    same(render(GOLDEN / "overlay"), kubectl(GOLDEN / "overlay"))


@needs_kubectl
@pytest.mark.parametrize("overlay", overlays())
def test_kubectl_makes_the_same_of_it(tmp_path: Path, overlay: str) -> None:
    for directory in (
        KUBERNETES / "overlays" / overlay,
        with_components(tmp_path, overlay),
        with_components(tmp_path, overlay, WITHOUT_OPERATOR),
    ):
        same(render(directory), kubectl(directory))


def test_for_a_prometheus_without_the_operator(tmp_path: Path) -> None:
    """It listens where it can be reached, says so in annotations, and the probes follow."""
    objects = render(with_components(tmp_path, "kubeadm", WITHOUT_OPERATOR))
    assert not {one["kind"] for one in objects} & OPERATOR.keys()
    template = next(o for o in objects if o["kind"] == "DaemonSet")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert "--listen=$(POD_IP):9742" in container["args"]
    assert [e["name"] for e in container["env"]] == ["POD_IP"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(container["ports"][0]["containerPort"])
    assert all("host" not in container[f"{probe}Probe"]["httpGet"] for probe in ("liveness", "readiness"))


# node-problem-detector in a container: what of its DaemonSet (deployment/node-problem-detector.yaml there) is patched.
DETECTOR: Object = {
    "apiVersion": "apps/v1", "kind": "DaemonSet",
    "metadata": {"name": "node-problem-detector", "namespace": "kube-system"},
    "spec": {
        "selector": {"matchLabels": {"app": "npd"}},
        "template": {
            "metadata": {"labels": {"app": "npd"}},
            "spec": {
                "containers": [{
                    "name": "node-problem-detector", "image": "npd",
                    "command": ["/node-problem-detector", "--logtostderr"],
                    "resources": {"limits": {"cpu": "10m", "memory": "80Mi"}}, "securityContext": {"privileged": True},
                    "volumeMounts": [{"name": "log", "mountPath": "/var/log", "readOnly": True}],
                }],
                "volumes": [{"name": "log", "hostPath": {"path": "/var/log/"}}],
            },
        },
    },
}  # fmt: skip


def detector(tmp_path: Path) -> Path:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    (tmp_path / "npd").mkdir()
    (tmp_path / "npd/npd.yaml").write_text(yaml.safe_dump(DETECTOR))
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["npd.yaml"],
        "components": ["../kubernetes/node-problem-detector/container"],
    }  # fmt: skip
    (tmp_path / "npd/kustomization.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "npd"


def test_node_problem_detector_in_a_container(tmp_path: Path) -> None:
    objects = render(detector(tmp_path))
    for one in objects:
        for version in VERSIONS:
            valid(one, version)
    spec = pod(objects)
    (container,) = spec["containers"]
    (told,) = (word.partition("=")[2] for word in container["command"] if "custom-plugin-monitor" in word)
    (mount,) = (mount for mount in container["volumeMounts"] if told.startswith(f"{mount['mountPath']}/"))
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == mount["name"])
    (data,) = (one["data"] for one in objects if one["metadata"]["name"] == volume["configMap"]["name"])
    assert json.loads(data[told.rpartition("/")[2]])["plugin"] == "custom"
    assert (spec["hostPID"], "cpu" in container["resources"]["limits"]) == (True, False)


@needs_kubectl
def test_kubectl_makes_the_same_of_the_detector(tmp_path: Path) -> None:
    directory = detector(tmp_path)
    same(render(directory), kubectl(directory))


def test_both_detectors_ask_the_same() -> None:
    """The one in a container asks through nsenter; everything else is alike."""
    node, inside = (
        json.loads((KUBERNETES / "node-problem-detector" / name).read_text())
        for name in ("janitor.json", "container/janitor.json")
    )
    (rule,) = inside["rules"]
    path, words = rule["path"], rule["args"]
    assert (path, words[: words.index("--")]) == ("/usr/bin/nsenter", ["--target", "1", "--mount", "--net"])
    rule["path"], *rule["args"] = words[words.index("--") + 1 :]
    assert inside == node
    assert "leases,rules,scan" in rule["args"], (
        "the condition is about addresses and rules, not about the configuration"
    )


@pytest.mark.parametrize("overlay", overlays())
def test_what_the_pod_is_given(overlay: str) -> None:
    objects = render(KUBERNETES / "overlays" / overlay)
    spec = pod(objects)
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert not (security["privileged"] or security["allowPrivilegeEscalation"] or spec["automountServiceAccountToken"])
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"]["drop"] == ["ALL"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    paths = {name: volume["hostPath"]["path"] for name, volume in volumes.items() if "hostPath" in volume}
    assert "/" not in paths.values()
    # janitor finds each where --root says.
    assert {name: mounts[name]["mountPath"] for name in paths} == {n: f"/host{path}" for n, path in paths.items()}
    assert "--root=/host" in container["args"]
    (socket,) = (word.removeprefix("--cri-endpoint=unix://") for word in container["args"] if "--cri-endpoint" in word)
    assert socket in CRI
    assert socket.startswith(f"{paths['runtime']}/")
    assert mounts["runtime"]["readOnly"]
    # The configuration is one that janitor takes, and says where the probes ask.
    (text,) = (o["data"]["janitor.toml"] for o in objects if o["kind"] == "ConfigMap")
    listen = tomllib.loads(text)["listen"]
    for probe in (container["livenessProbe"]["httpGet"], container["readinessProbe"]["httpGet"]):
        assert f"{probe['host']}:{probe['port']}" == listen


def test_no_object_gives_rights() -> None:
    kinds = {one["kind"] for name in overlays() for one in render(KUBERNETES / "overlays" / name)}
    assert kinds == {"Namespace", "ServiceAccount", "ResourceQuota", "ConfigMap", "DaemonSet"}


def test_a_quota_admits_its_priority_class() -> None:
    """Where critical pods are limited (GKE), a namespace without one has no pod of the DaemonSet."""
    objects = render(KUBERNETES / "overlays/kubeadm")
    (quota,) = (one["spec"] for one in objects if one["kind"] == "ResourceQuota")
    (scope,) = quota["scopeSelector"]["matchExpressions"]
    assert scope == {"scopeName": "PriorityClass", "operator": "In", "values": [pod(objects)["priorityClassName"]]}


def test_the_dashboard_is_one() -> None:
    board: dict[str, Any] = json.loads((KUBERNETES / "components/dashboard/janitor.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    corners = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(corners)) == len(corners)
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])
