"""noisegate's own image, as `make images` builds it from the checkout: built once for what it is made from."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tiers import UnavailableError

from vm.kept import digest, kept
from vm.programs import need

ROOT: Final = Path(__file__).parents[3]
PACKAGE: Final = ROOT / "noisegate"
"""Its rooms are links to folders beside it."""
SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE")
BUILDER: Final = ROOT / "deploy" / "image"
ARCHIVE: Final = "noisegate.oci.tar"
UNWANTED: Final = ("__pycache__", ".*", "*.swp", "*.tmp")


@contextlib.contextmanager
def archive() -> Iterator[Path]:
    """Give the archive; it is built where it is absent, in about a minute.

    Raises:
        UnavailableError: Programs or packages that it is made from cannot be had.
    """
    need("mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="noisegate-image-") as folder:
        # A copy: others may save files meanwhile, and what setuptools leaves in build/ is not to be packed.
        source = Path(folder)
        shutil.copytree(PACKAGE, source / "noisegate", ignore=shutil.ignore_patterns(*UNWANTED))
        for name in SOURCES:
            shutil.copy(ROOT / name, source)
        files = sorted(path for path in source.rglob("*") if path.is_file())
        builder = sorted(BUILDER.glob("*.py"))
        key = digest(*(str(path.relative_to(source)) for path in files), *files, *builder, Path(__file__))
        with kept("image", key, lambda made: _build(source, made)) as found:
            yield found / ARCHIVE


def _build(source: Path, folder: Path) -> None:
    wheels = source / "dist"
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={wheels}", str(source))
    (wheel,) = wheels.glob("noisegate-*.whl")
    _run(sys.executable, str(BUILDER), "--wheel", str(wheel), "--archive", str(folder / ARCHIVE))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{' '.join(command[:4])} ...: {(done.stderr or done.stdout)[-2000:]}")
