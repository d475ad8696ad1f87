"""The no-op pair that pod creation is measured against: aiohttp's low-level server that echoes the uid and says yes.

On the path /patch it adds, without looking, what noisegate adds to the benchmark's pods. Run as a process of its own: `python -m bench.echo CERTIFICATE KEY`; it prints its port.
"""

import asyncio
import base64
import json
import ssl
import sys

import msgspec
import uvloop
from aiohttp import web

PATCH = base64.b64encode(
    json.dumps(
        [
            {"op": "add", "path": "/metadata/annotations/cmk.intel.com~1resources-injected", "value": "true"},
            {
                "op": "add",
                "path": "/metadata/annotations/noisegate.io~1volume-paths",
                "value": '{"data":{"app":"/data"}}',
            },
            {"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "CMK_NUM_CORES", "value": "2"}]},
            {"op": "add", "path": "/spec/tolerations/-", "value": {"key": "cmk", "operator": "Exists"}},
        ]
    ).encode()
).decode()


class _Request(msgspec.Struct):
    uid: str


class _Review(msgspec.Struct):
    request: _Request


async def _answer(request: web.BaseRequest) -> web.Response:
    review = msgspec.json.decode(await request.read(), type=_Review)
    response: dict[str, object] = {"uid": review.request.uid, "allowed": True}
    if request.path == "/patch":
        response |= {"patchType": "JSONPatch", "patch": PATCH}
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def _serve(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    runner = web.ServerRunner(web.Server(_answer, access_log=None, keepalive_timeout=120))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], sys.argv[2]))
