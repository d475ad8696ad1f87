"""What is built once and kept outside the checkout: a folder for each kind, named by a digest of all that went into it."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from debian import cache

KEPT: Final = 2
"""Folders of a kind that outlive a new one; an older one goes unless somebody uses it."""


def digest(*parts: str | bytes | Path) -> str:
    """Return twelve hex digits of texts and of files' contents."""
    value = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        value.update(hashlib.sha256(content).digest())
    return value.hexdigest()[:12]


@contextlib.contextmanager
def kept(kind: str, key: str, build: Callable[[Path], None]) -> Iterator[Path]:
    """Give the folder of a kind and key, built where it is absent; it stays while the context lasts.

    Args:
        kind: Such as `node-state`.
        key: Digest of its inputs.
        build: Fills an empty folder, which then gets its name in one rename: a half-built one is never seen.
    """
    folder = cache() / f"{kind}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A lock is held by an open file: it ends with its holder, however that ends.
    with folder.with_suffix(".lock").open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if folder.exists():
                break
            # Not at one moment: the lock is let go and taken anew (flock(2)).
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _build(folder, build)
                _sweep(kind, folder)
        os.utime(folder)
        yield folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    print(f"building {folder.name} (once) ...", file=sys.stderr, flush=True)
    begun = time.monotonic()
    half = folder.with_name(f".{folder.name}")
    shutil.rmtree(half, ignore_errors=True)  # of a build that was killed
    half.mkdir()
    try:
        build(half)
        half.rename(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    print(f"built {folder.name} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def _sweep(kind: str, newest: Path) -> None:
    others = [path for path in newest.parent.glob(f"{kind}-*") if path.is_dir() and path != newest]
    old = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]
    killed = newest.parent.glob(f".{kind}-*")  # builds; those that go on hold their locks
    for path in (*old, *killed):
        name = path.name.removeprefix(".")
        with path.with_name(f"{name}.lock").open("w") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
