"""Images without a registry: busybox from a Debian package in an OCI layout (image-spec, image-layout.md)."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Final

from debian import unpacked

BUSYBOX: Final = "localhost/noisegate/busybox:1"
"""A shell and busybox's commands in /bin."""
PAUSE: Final = "localhost/noisegate/pause:1"
"""Holds a pod's namespaces."""
_COMMANDS: Final = {BUSYBOX: ["sh"], PAUSE: ["sleep", "2147483647"]}


def write(archive: Path) -> None:
    """Write an archive that `ctr images import` takes, with both images."""
    layer = _layer(unpacked("busybox-static") / "bin/busybox")
    with tarfile.open(archive, "w") as tar:
        blob = _put(tar, "application/vnd.oci.image.layer.v1.tar", layer)
        manifests = []
        for name, command in _COMMANDS.items():
            config = {
                "architecture": _architecture(),
                "os": "linux",
                "config": {"Cmd": command, "Env": ["PATH=/bin"]},
                # Digests of layers as they are unpacked; ours is not packed.
                "rootfs": {"type": "layers", "diff_ids": [blob["digest"]]},
            }
            manifest = {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _put(tar, "application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
                "layers": [blob],
            }
            described = _put(tar, str(manifest["mediaType"]), json.dumps(manifest).encode())
            # containerd's own annotation gives an image its whole name.
            manifests.append({**described, "annotations": {"io.containerd.image.name": name}})
        _file(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _file(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())


def _layer(busybox: Path) -> bytes:
    packed = io.BytesIO()
    applets = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        _file(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
        _file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    return packed.getvalue()


def _architecture() -> str:
    asked = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()  # Debian's amd64 and arm64 are Go's


def _put(tar: tarfile.TarFile, kind: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    _file(tar, f"blobs/sha256/{digest}", content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def _file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
