"""What deploy/ yields: overlays as kustomize builds them, and the settings that their admission server then has."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml
from binaries import find as program

from noisegate.__main__ import parser
from noisegate.cli import webhook
from noisegate.webhook.settings import Settings

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
FILES: Final = "/etc/noisegate/config"
"""Where the admission server's files are in its pod."""

Json = dict[str, Any]


def mine(folder: Path, *components: str, enforced: bool = False, taken: str = "") -> Path:
    """Make an overlay of one's own, as the guides say: a copy of the example, with commented lines taken in.

    Args:
        folder: Gets deploy/ whole.
        components: Names of the example's, in its order.
        enforced: Whether it stands on ../enforcer.
        taken: Further lines that are comments there, as they read without their `# `.

    Returns:
        The overlay's folder.
    """
    shutil.copytree(DEPLOY, folder / "deploy")
    overlay = folder / "deploy" / "overlays" / "mine"
    (overlay.parent / "example").rename(overlay)
    file = overlay / "kustomization.yaml"
    text = file.read_text()
    choice = "  - ../../base # or ../enforcer,"
    assert text.count(choice) == 1
    if enforced:
        text = text.replace(choice, "  - ../enforcer #")
    lines = ["components:", *(f"  - ../../components/{name}" for name in components)] if components else []
    for line in [*lines, *taken.splitlines()]:
        assert f"# {line}\n" in text, line
        text = text.replace(f"# {line}\n", f"{line}\n")
    file.write_text(text)
    return overlay


def built(folder: Path) -> list[Json]:
    """Return the objects of an overlay."""
    command = [str(program("kubectl")), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603  (a pinned kubectl)
    assert done.returncode == 0, done.stderr
    return [value for value in yaml.safe_load_all(done.stdout) if value]


def find(objects: list[Json], kind: str, name: str) -> Json:
    """Return one of them."""
    return next(value for value in objects if (value["kind"], value["metadata"]["name"]) == (kind, name))


def container(objects: list[Json], kind: str, name: str) -> Json:
    """Return the only container of one of them."""
    (found,) = find(objects, kind, name)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def flags(objects: list[Json]) -> list[str]:
    """Return the flags that the admission server has besides its configuration."""
    command, option, _file, *rest = container(objects, "Deployment", "noisegate-webhook")["args"]
    assert (command, option) == ("webhook", "--config")
    return list(rest)


def settings(objects: list[Json], folder: Path) -> Settings:
    """Return the admission server's settings, as it reads its file and its flags; paths are those in its pod.

    Args:
        objects: Of an overlay.
        folder: For the file.
    """
    file = folder / "server.yaml"
    file.write_text(find(objects, "ConfigMap", "noisegate-config")["data"]["server.yaml"])
    command = ["webhook", "--config", str(file), *flags(objects)]
    return webhook.settings_of(parser().parse_args(command))
