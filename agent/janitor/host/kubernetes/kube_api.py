"""The API server, if a kubeconfig or a ServiceAccount is given. The only module that imports lightkube, an extra.

Reads Nodes and, as far as permitted, the Services, workloads, events and CSINodes that a node's network depends on.
Kinds that it may not read are left out, and reported.
"""

from typing import TYPE_CHECKING, Any, Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import Objects
from janitor.core.model.unknown import unseen
from janitor.host.kubernetes import kube_objects

if TYPE_CHECKING:
    from lightkube import Client

IN_CLUSTER: Final = "in-cluster"
_TIMEOUT_S = 5.0


def objects(kubeconfig: str) -> tuple[Objects, ...] | Unknown:
    """What the owner of `kubeconfig`, a file or IN_CLUSTER, sees in the API. Unknown if the API cannot be asked."""
    try:
        import httpx2
        import lightkube
        import yaml
        from lightkube.core.exceptions import ApiError, LoadResourceError
    except ImportError:
        return unseen(Code.LIGHTKUBE_MISSING)
    try:
        client = _client(kubeconfig)
    except (lightkube.core.exceptions.ConfigError, OSError) as error:
        return unseen(Code.API_FAILED, kubeconfig=kubeconfig, error=str(error))
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, KeyError):
        return unseen(Code.BAD_KUBECONFIG, kubeconfig=kubeconfig)
    try:
        return _ask(client, kubeconfig)
    except ApiError as error:
        return unseen(Code.API_FAILED, kubeconfig=kubeconfig, error=str(error.status.message or error))
    except (httpx2.HTTPError, LoadResourceError, OSError, ValueError) as error:
        return unseen(Code.API_FAILED, kubeconfig=kubeconfig, error=str(error) or type(error).__name__)


def _client(kubeconfig: str) -> "Client":
    import httpx2
    from lightkube import Client, KubeConfig

    config = KubeConfig.from_service_account() if kubeconfig == IN_CLUSTER else KubeConfig.from_file(kubeconfig)
    return Client(config=config, timeout=httpx2.Timeout(_TIMEOUT_S))


def _ask(client: "Client", kubeconfig: str) -> tuple[Objects, ...]:
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.apps_v1 import DaemonSet, Deployment
    from lightkube.resources.core_v1 import Event, Node, Service
    from lightkube.resources.storage_v1 import CSINode

    found: list[dict[str, Any]] = []
    asked = {"Node"}
    found += [node.to_dict() | {"kind": "Node"} for node in client.list(Node)]
    fields = {"reason": "ClusterCIDRMisconfigured"}
    kinds = (("Service", Service, None), ("DaemonSet", DaemonSet, None), ("Deployment", Deployment, None),
             ("Event", Event, fields))  # fmt: skip
    for kind, resource, selector in kinds:
        try:
            listed = client.list(resource, namespace="*", fields=selector)  # type: ignore[arg-type]
            found += [item.to_dict() | {"kind": kind} for item in listed]  # type: ignore[attr-defined]
            asked.add(kind)
        except ApiError:
            continue  # forbidden: evidence() reports that this kind is missing
    try:
        found += [item.to_dict() | {"kind": "CSINode"} for item in client.list(CSINode)]
        asked.add("CSINode")
    except ApiError:
        pass
    return (kube_objects.evidence(found, f"the API server ({kubeconfig})", frozenset(asked), whole=True),)
