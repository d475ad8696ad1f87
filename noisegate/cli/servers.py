"""Several admission servers in one process, one for each server.yaml: what `noisegate demo` runs as its child.

They are told as arguments; where each one listens is written to standard output, a line of JSON each. They end when
standard input ends, so that they never outlive whoever started them.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from noisegate.cli.problems import codes
from noisegate.cli.webhook import config_of
from noisegate.service.faults import ConfigError
from noisegate.service.log import Log, take_over
from noisegate.webhook import server
from noisegate.webhook.metrics import Metrics
from noisegate.webhook.serverconfig import ServerConfig
from noisegate.webhook.settings import Settings
from noisegate.webhook.world import World

LOOPBACK = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until standard input ends; return the exit code: 0, 1 if calls had to be cut off, 2 if a file cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m noisegate.cli.servers")
    parser.add_argument("--certs", required=True, type=Path, help="directory of tls.crt, tls.key and ca.crt")
    parser.add_argument("--client", required=True, help="name of the client that is let in")
    parser.add_argument("settings", nargs="+", help="files of settings; an empty one stands for all defaults")
    args = parser.parse_args(argv)
    log = Log()
    take_over(log)
    try:
        served = [_served(file, args.certs, args.client) for file in args.settings]
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return server.in_loop(_serve(served, log))


class _Served(NamedTuple):
    file: str
    config: ServerConfig
    world: World


def _served(file: str, certs: Path, client: str) -> _Served:
    settings = Settings.load(Path(file).read_bytes() if file else b"", file or "server.yaml")
    config = replace(
        config_of(settings),
        binding_address=LOOPBACK,
        port=0,
        health_address=LOOPBACK,
        health_port=0,
        cert=str(certs / "tls.crt"),
        key=str(certs / "tls.key"),
        client_ca=str(certs / "ca.crt"),
        client_names=(client,),
        shutdown_delay=0.0,
    )
    world = World(settings, time.monotonic)
    world.load()
    return _Served(file, config, world)


async def _serve(served: Sequence[_Served], log: Log) -> int:
    stop = server.Stop()
    stop.on_signals()
    asyncio.get_running_loop().add_reader(sys.stdin, _read, stop)
    return max(await asyncio.gather(*[_serve_one(one, log, stop) for one in served]))


def _read(stop: server.Stop) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin)
        stop.ask()


async def _serve_one(one: _Served, log: Log, stop: server.Stop) -> int:
    metrics = Metrics(server.ENDPOINTS, [code.id for code in codes()], server.watched(one.config, one.world))

    def ready(where: server.Where) -> None:
        print(json.dumps({"settings": one.file, **where._asdict()}), flush=True)

    return await server.serve(one.config, one.world, metrics=metrics, log=log, stop=stop, ready=ready)


if __name__ == "__main__":
    sys.exit(main())
