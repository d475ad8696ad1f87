"""No-op A, what noisegate is measured against: aiohttp's low-level server that reads the body and says yes.

uvloop, no access log, TLS, a plain `web.Response` for every call. Run as a process of its own:
`python -m bench.noop PORT CERTIFICATE KEY`.
"""

import asyncio
import ssl
import sys
from typing import Final

import uvloop
from aiohttp import web

ANSWER: Final = (
    b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":'
    b'{"uid":"00000000-0000-4000-8000-000000000000","allowed":true}}'
)


async def _answer(request: web.BaseRequest) -> web.Response:
    await request.read()
    return web.Response(body=ANSWER, content_type="application/json")


async def _serve(port: int, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = web.Server(_answer, access_log=None, keepalive_timeout=120)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
