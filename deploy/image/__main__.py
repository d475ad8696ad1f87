"""Builds an image of noisegate from Debian's packages and Python's wheels, without a registry: `make images`.

mmdebstrap -> a small Debian tree with python3 -> pip's wheels into /opt/noisegate -> what nobody needs removed -> OCI archive
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from oci import write

SUITE = "bookworm"
"""Debian 12: its python3 is 3.11."""
PACKAGES = "python3-minimal,libpython3-stdlib,ca-certificates"
UID = 65532
UNNEEDED = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists", "var/cache/apt", "var/log",
    "var/cache/debconf", "usr/share/bash-completion", "usr/share/lintian",
)  # fmt: skip


def main() -> int:
    """Build the image; return the exit code."""
    parser = argparse.ArgumentParser(prog="python deploy/image", description=__doc__)
    parser.add_argument("--wheel", required=True, type=Path, help="noisegate's own")
    parser.add_argument("--archive", required=True, type=Path, help="the file to be written")
    args = parser.parse_args()
    if shutil.which("mmdebstrap") is None:
        print("mmdebstrap is not here: apt-get install mmdebstrap", file=sys.stderr)
        return 2
    version = args.wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory(prefix="noisegate-image-") as folder:
        tree = Path(folder) / "tree"
        _run("mmdebstrap", "--variant=minbase", "--mode=root", "--quiet", f"--include={PACKAGES}", SUITE, str(tree))
        _install(args.wheel, tree)
        _tidy(tree)
        config = {
            "User": f"{UID}:{UID}",
            "Env": [
                "PATH=/usr/bin:/bin",
                "PYTHONPATH=/opt/noisegate",
                "PYTHONUNBUFFERED=1",
                "PYTHONDONTWRITEBYTECODE=1",
            ],
            "Entrypoint": ["/usr/bin/python3", "-m", "noisegate"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "noisegate",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        }
        digest = write(args.archive, tree, f"noisegate:{version}", config)
    print(f"{args.archive}: noisegate:{version}, {args.archive.stat().st_size / 1e6:.0f} MB, {digest}")
    return 0


def _install(wheel: Path, tree: Path) -> None:
    # Wheels for the tree's Python are put there from outside: nothing runs in it, and no pip stays in it.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    binary = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
    _run(*pip, *binary, f"--target={tree / 'opt' / 'noisegate'}", f"{wheel}[webhook,controller]")


def _tidy(tree: Path) -> None:
    for path in UNNEEDED:
        shutil.rmtree(tree / path, ignore_errors=True)
    for path in [*tree.rglob("__pycache__"), *(tree / "dev").iterdir()]:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()
    with (tree / "etc" / "passwd").open("a") as passwd:
        passwd.write(f"noisegate:x:{UID}:{UID}::/:/usr/sbin/nologin\n")


def _run(*command: str) -> None:
    print("+", *command[:4], "...", flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
