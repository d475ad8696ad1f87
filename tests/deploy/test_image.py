"""The archive that `make images` writes is an OCI image layout, and the same tree gives the same bytes."""

import gzip
import hashlib
import importlib.util
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Final

import pytest

OCI: Final = Path(__file__).parents[2] / "deploy" / "image" / "oci.py"


@pytest.fixture(name="oci", scope="module")
def _oci() -> Any:
    # A program of its own, beside the package: found by its path.
    spec = importlib.util.spec_from_file_location("oci", OCI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "usr" / "bin").mkdir(parents=True)
    (tree / "usr" / "bin" / "tool").write_bytes(b"#!/bin/sh\n")
    (tree / "usr" / "bin" / "tool").chmod(0o755)
    (tree / "bin").symlink_to("usr/bin")
    return tree


def blobs(archive: Path) -> dict[str, bytes]:
    """Return the files of an archive."""
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_digests_and_sizes_fit(oci: Any, tree: Path, tmp_path: Path) -> None:
    """From index.json down to the layer's own digest, unpacked."""
    digest = oci.write(tmp_path / "i.tar", tree, "noisegate:1", {"User": "65532:65532"})
    files = blobs(tmp_path / "i.tar")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads(files["index.json"])["manifests"]
    assert described["annotations"] == {"org.opencontainers.image.ref.name": "noisegate:1"}
    assert described["digest"] == digest
    manifest = json.loads(files[f"blobs/{digest.replace(':', '/')}"])
    for one in (described, manifest["config"], *manifest["layers"]):
        content = files[f"blobs/{one['digest'].replace(':', '/')}"]
        assert (one["size"], one["digest"]) == (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
    config = json.loads(files[f"blobs/{manifest['config']['digest'].replace(':', '/')}"])
    layer = gzip.decompress(files[f"blobs/{manifest['layers'][0]['digest'].replace(':', '/')}"])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert config["config"] == {"User": "65532:65532"}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == ["bin", "usr", "usr/bin", "usr/bin/tool"]
    assert (members["bin"].linkname, members["usr/bin/tool"].mode, members["usr/bin/tool"].mtime) == (
        "usr/bin",
        0o755,
        0,
    )


def test_the_same_tree_gives_the_same_bytes(oci: Any, tree: Path, tmp_path: Path) -> None:
    """Whenever its files were written."""
    oci.write(tmp_path / "a.tar", tree, "n:1", {})
    (tree / "usr" / "bin" / "tool").touch()
    oci.write(tmp_path / "b.tar", tree, "n:1", {})
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
