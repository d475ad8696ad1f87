"""The programs of a control plane, built from Go modules that go.sum pins and verifies; `python -m controlplane.binaries`.

No ready binary of Kubernetes is needed: tests/binaries/ has a Go module for each upstream, and what is built lies in a cache
outside the checkout, by version. NOISEGATE_KUBERNETES_BIN names a folder of ready binaries instead, and
NOISEGATE_KUBERNETES_VERSION=1.34 chooses the oldest release that is supported.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

MODULES: Final = Path(__file__).parents[2] / "binaries"
READY: Final = "NOISEGATE_KUBERNETES_BIN"
RELEASE: Final = "NOISEGATE_KUBERNETES_VERSION"

PACKAGES: Final = {
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
}
"""Each program's upstream and Go package."""


class UnavailableError(Exception):
    """The programs are not there and cannot be built: why, and what to do."""


class Upstream(NamedTuple):
    """One Go module that pins an upstream.

    Attributes:
        folder: Where its go.mod and go.sum are.
        version: Of the upstream, as `v1.37.2`.
        cache: Where its programs are kept.
    """

    folder: Path
    version: str
    cache: Path


def upstream(name: str) -> Upstream:
    """Return the module of an upstream, `etcd` or `kubernetes`.

    Raises:
        UnavailableError: There is no module for the release that is asked for.
    """
    release = os.environ.get(RELEASE, "") if name == "kubernetes" else ""
    folder = MODULES / (f"{name}-{release}" if release else name)
    if not (folder / "go.mod").is_file():
        known = ", ".join(sorted(path.name.partition("-")[2] for path in MODULES.glob(f"{name}-*")))
        raise UnavailableError(f"{RELEASE}={release}: allowed: {known}, or unset for the newest")
    text = (folder / "go.mod").read_text()
    pinned = re.search(r"(?:k8s\.io/kubernetes|go\.etcd\.io/etcd/server/v3) (v[0-9.]+)", text)
    assert pinned is not None
    digest = hashlib.sha256(text.encode() + (folder / "go.sum").read_bytes()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Upstream(folder, pinned[1], base / "noisegate" / f"{name}-{pinned[1]}-{digest}")


def find(program: str) -> Path:
    """Return a program's path; build it where it is absent.

    Raises:
        UnavailableError: It is not there and cannot be built.
    """
    ready = os.environ.get(READY)
    if ready:
        path = Path(ready, program)
        if not os.access(path, os.X_OK):
            raise UnavailableError(f"{READY}={ready}: there is no {program} in it; unset it to have one built")
        return path
    source = upstream(PACKAGES[program][0])
    path = source.cache / program
    if not path.exists():
        _build(program, source)
    return path


def _build(program: str, source: Upstream) -> None:
    go = shutil.which("go")
    if go is None:
        raise UnavailableError(f"{program} must be built and there is no Go; install Go 1.26, or set {READY}")
    source.cache.mkdir(parents=True, exist_ok=True)
    with _locked(source.cache / ".lock"):
        if (source.cache / program).exists():
            return
        print(
            f"building {program} {source.version} (once; kube-apiserver takes minutes) ...", file=sys.stderr, flush=True
        )
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(dir=source.cache) as half:
            built = Path(half, program)
            command = [go, "build", "-trimpath", "-ldflags", _flags(source), "-o", str(built), PACKAGES[program][1]]
            done = subprocess.run(
                command,
                cwd=source.folder,
                env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise UnavailableError(f"{program} {source.version} cannot be built: {done.stderr[-2000:]}")
            built.rename(source.cache / program)
        print(f"built {program} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def _flags(source: Upstream) -> str:
    # Without these the server calls itself v0.0.0-master.
    major, minor, _ = source.version.removeprefix("v").split(".")
    named = {"gitVersion": source.version, "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in named.items())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Have every program ready; return the exit code."""
    try:
        for program in PACKAGES:
            print(f"{program:<24} {find(program)}")
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
