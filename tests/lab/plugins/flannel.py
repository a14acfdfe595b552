"""Does what flannel's CNI plugin does, as far as leases go: it has no IPAM and delegates to `bridge`.

ADD makes the delegate's configuration from /run/flannel/subnet.env, saves it as /var/lib/cni/flannel/<container> and
runs the delegate; DEL reads it from there. Without that file DEL reports success and does nothing, like the real one;
this is one way in which leases leak.

Standard library only, and run with `python -IS`: a runtime starts it for each pod.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SUBNET_ENV = Path("/run/flannel/subnet.env")
SCRATCH = Path("/var/lib/cni/flannel")


def main() -> int:
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        print(json.dumps({"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}))
        return 0
    config = json.load(sys.stdin)
    scratch = SCRATCH / os.environ["CNI_CONTAINERID"]
    if command == "ADD":
        return add(config, scratch)
    if command == "DEL":
        return delete(scratch)
    return 0


def add(config: dict[str, Any], scratch: Path) -> int:
    try:
        delegate = delegate_config(config, SUBNET_ENV.read_text())
    except (OSError, KeyError, ValueError) as error:
        message = f"loadFlannelSubnetEnv failed: {error!r}"
        print(json.dumps({"cniVersion": config["cniVersion"], "code": 11, "msg": message}))
        return 1
    SCRATCH.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps(delegate)
    scratch.write_text(text)
    scratch.chmod(0o600)
    return run(str(delegate["type"]), text)


def delete(scratch: Path) -> int:
    try:
        text = scratch.read_text()
        kind = str(json.loads(text)["type"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
    status = run(kind, text)
    if status == 0:
        scratch.unlink(missing_ok=True)
    return status


def delegate_config(config: dict[str, Any], subnet_env: str) -> dict[str, Any]:
    values = dict(line.split("=", 1) for line in subnet_env.split() if "=" in line)
    # FLANNEL_SUBNET is the bridge's own address with the prefix length; the range is the network around it.
    subnet = str(ipaddress.ip_interface(values["FLANNEL_SUBNET"]).network)
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet}]],
        "routes": [{"dst": values["FLANNEL_NETWORK"]}],
    }
    defaults: dict[str, Any] = {
        "type": "bridge",
        "mtu": int(values["FLANNEL_MTU"]),
        "ipMasq": values["FLANNEL_IPMASQ"] != "true",
        "isGateway": True,
        "ipam": ipam,
    }
    delegate: dict[str, Any] = config.get("delegate", {})
    return defaults | delegate | {"name": config["name"], "cniVersion": config["cniVersion"]}


def run(plugin: str, text: str) -> int:
    """Run the delegate with this plugin's environment; its answer is the plugin's answer."""
    for directory in os.environ["CNI_PATH"].split(":"):
        path = Path(directory) / plugin
        if path.exists():
            return subprocess.run([path], input=text, text=True, check=False).returncode
    print(json.dumps({"code": 4, "msg": f"no plugin {plugin} in {os.environ['CNI_PATH']}"}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
