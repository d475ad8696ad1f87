"""An API server's objects in memory, which fails when a test says so: the real one is in tests/apiserver, and cannot."""

import asyncio
import copy
import itertools
from collections.abc import Callable
from typing import Any, Final

import jsonpatch

from noisegate.cluster.connection import ApiError
from noisegate.control.api import Api, Object


class HeldApi(Api):
    """Objects by path, each with a resourceVersion that a patch must name.

    Attributes:
        objects: What is there.
        created: What was created, in order.
        failing: Is asked about each call, by method and path; what it returns is raised.
        hanging: Is asked likewise; a call that it names is never answered.
    """

    def __init__(self) -> None:
        # Nothing of the client is used.
        self.objects: Final[dict[str, Object]] = {}
        self.created: Final[list[Object]] = []
        self.failing: Callable[[str, str], ApiError | None] = lambda _method, _path: None
        self.hanging: Callable[[str, str], bool] = lambda _method, _path: False
        self._versions: Final = itertools.count(1)

    def put(self, path: str, value: Object) -> None:
        """Have an object, as somebody else writes it."""
        metadata = {**value.get("metadata", {}), "resourceVersion": str(next(self._versions))}
        self.objects[path] = {**value, "metadata": metadata}

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def _call(self, method: str, path: str, body: Any = None) -> Object:
        await asyncio.sleep(0)
        if self.hanging(method, path):
            await asyncio.Event().wait()
        failure = self.failing(method, path)
        if failure is not None:
            raise failure
        if method == "POST":
            where = f"{path}/{body['metadata']['name']}"
            if where in self.objects:
                raise ApiError(409, f"{where} already exists")
            self.put(where, body)
            self.created.append(body)
            return self.objects[where]
        if path not in self.objects:
            raise ApiError(404, f"{path} not found")
        if method == "PATCH":
            there = self.objects[path]
            if body[0]["value"] != there["metadata"]["resourceVersion"]:
                raise ApiError(409, "the object has been modified")
            self.put(path, jsonpatch.apply_patch(there, body))
        return copy.deepcopy(self.objects[path])
