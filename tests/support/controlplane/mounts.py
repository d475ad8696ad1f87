"""What a kubelet does for a mounted Secret or ConfigMap.

A stand-in, because a kubelet refuses to run on cgroup v1, which test machines have; whole nodes run in a virtual machine.
"""

import base64
import secrets
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from controlplane.api import Api, path_of

EVERY: Final = 0.05
"""Seconds between two looks."""


class Mounted:
    """Keeps a folder as a kubelet keeps a mount: all files change in one swing of the `..data` link.

    Args:
        api: As who.
        kind: `Secret` or `ConfigMap`.
        namespace: Where the object is.
        name: The object.
        folder: Where its contents are written.
        delay: Seconds by which each change comes late, as kubelets are.
    """

    def __init__(self, api: Api, kind: str, namespace: str, name: str, folder: Path, delay: float = 0.0) -> None:
        self.folder: Final = folder
        self.delay = delay
        self._api: Final = api
        self._path: Final = (
            path_of({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": namespace}}) + f"/{name}"
        )
        self._version = ""
        self._ended: Final = threading.Event()
        self._filled: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._follow, name=f"mount {name}", daemon=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def wait(self, seconds: float = 30.0) -> None:
        """Wait until the object is there and mounted, as a pod's start does."""
        assert self._filled.wait(seconds), f"{self._path} did not come"

    def _follow(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError):  # an API server that restarts
                reply = self._api.get(self._path)
                # A kubelet keeps the files of an object that is gone.
                if reply.status == 200 and reply.body["metadata"]["resourceVersion"] != self._version:
                    self._ended.wait(self.delay if self._version else 0.0)
                    self._write(reply.body)
            self._ended.wait(EVERY)

    def _write(self, value: dict[str, Any]) -> None:
        files = {name: text.encode() for name, text in (value.get("data") or {}).items()}
        if value["kind"] == "Secret":
            files = {name: base64.b64decode(text) for name, text in files.items()}
        old = (self.folder / "..data").readlink() if (self.folder / "..data").is_symlink() else None
        generation = f"..{secrets.token_hex(6)}"
        (self.folder / generation).mkdir()
        for name, content in files.items():
            (self.folder / generation / name).write_bytes(content)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        half = self.folder / "..data_tmp"
        half.symlink_to(generation)
        half.rename(self.folder / "..data")
        if old is not None:
            shutil.rmtree(self.folder / old)
        self._version = value["metadata"]["resourceVersion"]
        self._filled.set()
