"""A container runtime that gives false answers: hostile_runtime.py SOCKET BIN_DIR [COMM]

It answers CRI on SOCKET with an empty list, and claims that its CNI plugins are in BIN_DIR. COMM is its process name.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from concurrent import futures
from typing import Any

import grpc

from janitor.host.runtime import cri_pb2 as cri


def main() -> None:
    address, plugins, *name = sys.argv[1:]
    if name:
        ctypes.CDLL(None).prctl(15, name[0].encode(), 0, 0, 0)  # PR_SET_NAME
    info = {"config": json.dumps({"cni": {"binDir": plugins}})}
    answers: dict[str, tuple[Any, Any]] = {
        "Version": (cri.VersionRequest, cri.VersionResponse(
            version="0.1.0", runtime_name="cri-o", runtime_version="1.36", runtime_api_version="v1")),
        "Status": (cri.StatusRequest, cri.StatusResponse(info=info)),
        "ListPodSandbox": (cri.ListPodSandboxRequest, cri.ListPodSandboxResponse()),
    }  # fmt: skip
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        method: grpc.unary_unary_rpc_method_handler(
            lambda _request, _context, answer=answer: answer,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for method, (request, answer) in answers.items()
    }
    server = grpc.server(futures.ThreadPoolExecutor(4))
    generic = grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", handlers)
    server.add_generic_rpc_handlers((generic,))
    server.add_insecure_port(f"unix:{address}")
    server.start()
    print("up", flush=True)
    time.sleep(1000)


if __name__ == "__main__":
    main()
