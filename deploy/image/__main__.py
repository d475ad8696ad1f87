"""Builds an image of noisegate from Debian's packages and Python's wheels, without a registry: `make images`.

mmdebstrap -> a small Debian tree with python3 -> pip's wheels into /opt/noisegate -> what nobody needs removed -> OCI archive
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from oci import write

SUITE = "bookworm"
"""Debian 12: its python3 is 3.11."""
PACKAGES = "python3-minimal,libpython3-stdlib,ca-certificates"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""chroot is in /usr/sbin. It hands this on to the host's runc, which Debian has in /usr/sbin and others in /usr/local/sbin."""
UID = 65532
GLIBC = [
    f"--platform={tag}_x86_64"
    for tag in (*(f"manylinux_2_{minor}" for minor in range(36, 16, -1)), "manylinux2014", "linux")
]
"""What Debian 12's glibc 2.36 can load, the newest first."""
UNNEEDED = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists", "var/cache/apt", "var/log",
    "var/cache/debconf", "usr/share/bash-completion", "usr/share/lintian", "usr/share/perl", "usr/share/perl5",
    "usr/lib/x86_64-linux-gnu/perl", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/python3.11/pydoc_data",
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
                f"PATH={PATH}",
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
    binary = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", *GLIBC]
    target = tree / "opt" / "noisegate"
    _run(*pip, *binary, f"--target={target}", f"{wheel}[webhook,controller,node]")
    # Launchers for another Python, and where the wheel lay on the machine that built it.
    shutil.rmtree(target / "bin", ignore_errors=True)
    for path in target.glob("*.dist-info/direct_url.json"):
        path.unlink()


def _tidy(tree: Path) -> None:
    for name in UNNEEDED:
        shutil.rmtree(tree / name, ignore_errors=True)
    for path in [*tree.rglob("__pycache__"), *(tree / "dev").iterdir()]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for file, line in (("passwd", f"noisegate:x:{UID}:{UID}::/:/usr/sbin/nologin"), ("group", f"noisegate:x:{UID}:")):
        with (tree / "etc" / file).open("a") as table:
            table.write(f"{line}\n")
    # A read-only root can keep no byte code, and dates in the image are no dates: it is taken as it is (PEP 552).
    if sys.version_info[:2] == (3, 11):
        folders = [str(tree / name) for name in ("opt/noisegate", "usr/lib/python3.11")]
        named = ["-s", str(tree), "-p", "/", "--invalidation-mode=unchecked-hash"]
        _run(sys.executable, "-m", "compileall", "-q", *named, *folders)


def _run(*command: str) -> None:
    print("+", *command[:4], "...", flush=True)
    subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})


if __name__ == "__main__":
    sys.exit(main())
