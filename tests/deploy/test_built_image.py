"""The image that `make images` has built, as a kubelet runs it: its own files, not root, and nothing to be written to.

NOISEGATE_IMAGE names the archive. No runtime is needed: the layer is unpacked, and a mount namespace makes it a root.
"""

import gzip
import http.client
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml
from builders import container, cores, pod, review
from installed import Certificates
from replicas import Program
from tiers import UnavailableError, absent

ARCHIVE: Final = "NOISEGATE_IMAGE"
ROOTED: Final = """
set -e
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/tmp"
mount --rbind "$2" "$1/mnt"
mount -o remount,bind,ro "$1"
cd "$1"
root=$1 user=$3
shift 3
exec chroot --userspec="$user" "$root" "$@"
"""
"""In a mount namespace of its own: what a runtime does of a container's root, with one folder of the test's at /mnt."""


class Image(NamedTuple):
    """An unpacked image.

    Attributes:
        command: Runs its entry point as its user; arguments follow.
        folder: What is at /mnt.
    """

    command: list[str]
    folder: Path

    def python(self, *args: str) -> "subprocess.CompletedProcess[str]":
        """Run its Python."""
        return subprocess.run(  # noqa: S603  (our own image)
            [*self.command[: self.command.index("-m")], *args], capture_output=True, text=True, check=False, timeout=60
        )


@pytest.fixture(name="image", scope="module")
def _image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    archive = os.environ.get(ARCHIVE, "")
    if not archive:
        absent("image", UnavailableError(f"{ARCHIVE} is not set; make images, and set it to dist/noisegate.oci.tar"))
    if os.geteuid() != 0:
        absent("image", UnavailableError("a user of the image's own takes root"))
    tree = tmp_path_factory.mktemp("image")
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> bytes:
            content = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert content is not None
            return content.read()

        index = tar.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        config: dict[str, Any] = json.loads(blob(manifest["config"]["digest"]))["config"]
        (layer,) = manifest["layers"]
        (tree / "layer.tar").write_bytes(gzip.decompress(blob(layer["digest"])))
    root = tree / "root"
    with tarfile.open(tree / "layer.tar") as unpacked:
        unpacked.extractall(root, filter="fully_trusted")  # noqa: S202  (with its owners and modes, as a runtime does)
    folder = tree / "mnt"
    folder.mkdir()
    # The image's user passes through pytest's folders, and reads what is its own.
    for path in (tree, *tree.parents[:2]):
        path.chmod(0o755)
    where = ["unshare", "--mount", "sh", "-c", ROOTED, "sh", str(root), str(folder), config["User"]]
    yield Image([*where, "/usr/bin/env", "-i", *config["Env"], *config["Entrypoint"]], folder)
    shutil.rmtree(root)


def test_it_is_not_root_and_can_write_nothing(image: Image) -> None:
    """Nor does it need to: byte code is there already, for every module that the programs load."""
    wrote = image.python("-c", "import os; print(os.getuid(), os.getgid()); open('/opt/noisegate/x', 'w')")
    assert wrote.stdout == "65532 65532\n"
    assert "Read-only file system" in wrote.stderr
    loaded = image.python(
        "-c",
        "import sys, os, noisegate.webhook.server, noisegate.control.controller; "
        "print([m.__file__ for m in list(sys.modules.values()) "
        "if getattr(m, '__cached__', None) and not os.path.exists(m.__cached__)])",
    )
    assert (loaded.stdout, loaded.stderr) == ("[]\n", "")


def test_the_host_s_runc_is_found(image: Image) -> None:
    """The enforcer asks it through chroot, which the image has, and which hands PATH on: Debian's is in /usr/sbin."""
    told = image.python("-c", "import os, shutil; print(shutil.which('chroot'), *os.get_exec_path())")
    chroot, *folders = told.stdout.split()
    assert chroot.endswith("/chroot"), told.stderr
    assert {f"{up}/{name}" for up in ("/usr/local", "/usr", "") for name in ("bin", "sbin")} <= set(folders)


def test_its_server_answers(image: Image, tmp_path: Path) -> None:
    """A review comes over TLS, and goes with what the pod is to be given; SIGTERM ends it in good order."""
    certificates = Certificates(image.folder / "pair")
    server = {
        "binding-address": "127.0.0.1",
        "health-address": "127.0.0.1",
        "cert": "/mnt/pair/cert.pem",
        "key": "/mnt/pair/key.pem",
        "log-format": "json",
        "shutdown-delay": 0,
    }
    (image.folder / "server.yaml").write_text(yaml.safe_dump({"server": server}))
    for path in (image.folder, *image.folder.rglob("*")):
        os.chown(path, 65532, 65532)
    flags = ["webhook", "--config", "/mnt/server.yaml", "--port", "0", "--health-port", "0"]
    program = Program(flags, tmp_path / "log", "serving", command=image.command)
    with program:
        program.ready()
        connection = http.client.HTTPSConnection(
            "localhost", program.where["port"], context=certificates.trust(), timeout=10
        )
        with closing(connection):
            body = review(pod(containers=[container(resources=cores(2))]))
            connection.request("POST", "/mutate", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())["response"]
        assert answer["allowed"]
        assert answer["patchType"] == "JSONPatch"
        assert program.end() == 0


def test_its_controller_starts(image: Image) -> None:
    """As far as its first need: something to speak to."""
    done = image.python("-m", "noisegate", "controller", "--kubeconfig", "/mnt/none")
    assert (done.returncode, done.stderr) == (2, "noisegate controller: /mnt/none: there is no such file\n")
