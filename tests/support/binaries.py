"""The programs that tests need, built from Go modules that go.sum pins and verifies: `python -m binaries [GROUP ...]`.

Most of them cannot be had ready: tests/binaries/ has a Go module for each upstream, and what is built lies in a cache outside
the checkout, by version. NOISEGATE_KUBERNETES_BIN and NOISEGATE_RUNTIME_BIN name folders of ready binaries instead, and
NOISEGATE_KUBERNETES_VERSION=1.34 chooses the oldest release that is supported.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from debian import cache, locked, unpacked
from tiers import UnavailableError

MODULES: Final = Path(__file__).parents[1] / "binaries"
RELEASE: Final = "NOISEGATE_KUBERNETES_VERSION"


class Recipe(NamedTuple):
    """How the programs of one upstream are built.

    Attributes:
        module: The Go module whose version is the upstream's.
        ready: Environment variable that names a folder of ready binaries.
        stamps: Variables that the linker sets, with `{version}`, `{major}` and `{minor}`, else programs do not know their version.
        tags: Build tags.
        library: Debian package of a C library that is linked in statically; empty without C.
    """

    module: str
    ready: str
    stamps: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    library: str = ""


RECIPES: Final = {
    "etcd": Recipe("go.etcd.io/etcd/server/v3", "NOISEGATE_KUBERNETES_BIN"),
    "kubernetes": Recipe(
        "k8s.io/kubernetes",
        "NOISEGATE_KUBERNETES_BIN",
        (
            "k8s.io/component-base/version.gitVersion={version}",
            "k8s.io/component-base/version.gitMajor={major}",
            "k8s.io/component-base/version.gitMinor={minor}",
        ),
    ),
    "containerd": Recipe(
        "github.com/containerd/containerd/v2",
        "NOISEGATE_RUNTIME_BIN",
        ("github.com/containerd/containerd/v2/version.Version={version}",),
    ),
    "runc": Recipe(
        "github.com/opencontainers/runc",
        "NOISEGATE_RUNTIME_BIN",
        # As upstream's static build: no resolver and no user database of glibc, which cannot be linked in.
        tags=("seccomp", "urfave_cli_no_docs", "netgo", "osusergo"),
        library="libseccomp-dev",
    ),
    "cni": Recipe(
        "github.com/containernetworking/plugins",
        "NOISEGATE_RUNTIME_BIN",
        ("github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion={version}",),
    ),
}
"""Each upstream, by the name of its folder."""

PACKAGES: Final = {
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubelet": ("kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    "containerd": ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    "containerd-shim-runc-v2": ("containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
    "ctr": ("containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
    "runc": ("runc", "github.com/opencontainers/runc"),
    "ptp": ("cni", "github.com/containernetworking/plugins/plugins/main/ptp"),
    "host-local": ("cni", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
    "loopback": ("cni", "github.com/containernetworking/plugins/plugins/main/loopback"),
}
"""Each program's upstream and Go package."""

CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
RUNTIME: Final = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", "ptp", "host-local", "loopback")
GROUPS: Final = {
    "control-plane": CONTROL_PLANE,
    "runtime": RUNTIME,
    "node": ("kubelet", "kube-scheduler", *RUNTIME),
}
"""What each tier of the tests needs."""


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
    """Return the module of an upstream, a name of RECIPES.

    Raises:
        UnavailableError: There is no module for the release that is asked for.
    """
    release = os.environ.get(RELEASE, "") if name == "kubernetes" else ""
    folder = MODULES / (f"{name}-{release}" if release else name)
    if not (folder / "go.mod").is_file():
        known = ", ".join(sorted(path.name.partition("-")[2] for path in MODULES.glob(f"{name}-*")))
        raise UnavailableError(f"{RELEASE}={release}: allowed: {known}, or unset for the newest")
    recipe = RECIPES[name]
    text = (folder / "go.mod").read_text()
    pinned = re.search(rf"\s{re.escape(recipe.module)} (v[0-9.]+)\b", text)
    assert pinned is not None
    key = text.encode() + (folder / "go.sum").read_bytes() + " ".join(recipe.tags).encode()
    return Upstream(folder, pinned[1], cache() / f"{name}-{pinned[1]}-{hashlib.sha256(key).hexdigest()[:12]}")


def find(program: str) -> Path:
    """Return a program's path; build it where it is absent.

    Raises:
        UnavailableError: It is not there and cannot be built.
    """
    name, _ = PACKAGES[program]
    variable = RECIPES[name].ready
    ready = os.environ.get(variable)
    if ready:
        path = Path(ready, program)
        if not os.access(path, os.X_OK):
            raise UnavailableError(f"{variable}={ready}: there is no {program} in it; unset it to have one built")
        return path
    path = upstream(name).cache / program
    if not path.exists():
        _build(program)
    return path


def _build(program: str) -> None:
    name, package = PACKAGES[program]
    source, recipe = upstream(name), RECIPES[name]
    go = shutil.which("go")
    if go is None:
        raise UnavailableError(f"{program} must be built and there is no Go; install Go 1.26, or set {recipe.ready}")
    source.cache.mkdir(parents=True, exist_ok=True)
    with locked(source.cache / ".lock"):
        if (source.cache / program).exists():
            return
        print(f"building {program} {source.version} (once; some take minutes) ...", file=sys.stderr, flush=True)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(dir=source.cache) as half:
            built = Path(half, program)
            done = subprocess.run(
                [go, "build", "-trimpath", *_options(recipe, source.version), "-o", str(built), package],
                cwd=source.folder,
                env={**os.environ, **_environment(recipe)},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise UnavailableError(f"{program} {source.version} cannot be built: {done.stderr[-2000:]}")
            built.rename(source.cache / program)
        print(f"built {program} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def _options(recipe: Recipe, version: str) -> list[str]:
    major, minor, _ = version.removeprefix("v").split(".")
    flags = ["-s", "-w"]
    for stamp in recipe.stamps:
        flags += ["-X", stamp.format(version=version, major=major, minor=minor)]
    if recipe.library:
        flags += ["-linkmode", "external", "-extldflags", "-static-pie"]
    options = ["-ldflags", " ".join(flags)]
    if recipe.tags:
        options += ["-tags", " ".join(recipe.tags)]
    return [*options, "-buildmode=pie"] if recipe.library else options


def _environment(recipe: Recipe) -> dict[str, str]:
    environment = {"CGO_ENABLED": "1" if recipe.library else "0", "GOFLAGS": "-buildvcs=false"}
    if recipe.library:
        root = unpacked(recipe.library)
        folders = [str(path.parent) for path in root.glob("usr/lib/**/pkgconfig/*.pc")]
        # pkg-config prefixes what a package says of itself, /usr/include and so on, with the folder it was unpacked to.
        environment |= {"PKG_CONFIG_PATH": ":".join(folders), "PKG_CONFIG_SYSROOT_DIR": str(root)}
    return environment


def main(arguments: list[str] | None = None) -> int:
    """Have the programs of some groups ready, without one of all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m binaries", description=__doc__.splitlines()[0])
    parser.add_argument("group", nargs="*", help=f"what to have ready: {', '.join(GROUPS)}; all by default")
    groups = parser.parse_args(arguments).group or list(GROUPS)
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    try:
        for program in dict.fromkeys(program for group in groups for program in GROUPS[group]):
            print(f"{program:<24} {find(program)}")
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
