"""`noisegate node rdt-config`: the runtime's RDT file, made from the cluster's class file.

The runtime reads it when it starts, through goresctrl, which refuses keys it does not know (`UnmarshalStrict`): only
`options` and `partitions` are written. containerd finds it by `rdt_config_file` of its tasks-service.
"""

import os
import tempfile
from pathlib import Path
from typing import Final, Literal

import yaml

from noisegate.enforcement.plan.partitions import ClassFile, resolve
from noisegate.enforcement.plan.schemata import Machine
from noisegate.enforcement.refusal import Refusal

HEADER: Final = "# Written by noisegate node rdt-config; changes here are lost."
_KEYS: Final = ("options", "partitions")

Written = Literal["written", "unchanged", "stale"]


class _Dumper(yaml.SafeDumper):
    """Writes what aliases repeat in full: goresctrl's reader bounds them, and people read it."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def render(classes: ClassFile) -> str:
    """Return the runtime's file: what goresctrl reads of the class file, under a header of ours."""
    content = {key: classes.value[key] for key in _KEYS if classes.value.get(key)}
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return f"{HEADER}\n{text}"


def write_runtime_file(
    classes: ClassFile, target: Path, *, machine: Machine | None = None, check: bool = False, force: bool = False
) -> Written:
    """Write the runtime's RDT file, whole or not at all.

    Args:
        classes: The class file.
        target: The runtime's `rdt_config_file`.
        machine: What this machine can share out, if it is to be checked that the classes fit.
        check: Only tell whether the file is as it would be written: `stale` or `unchanged`.
        force: Also overwrite a file that this program has not written.

    Raises:
        ConfigError: The classes do not fit the machine.
        Refusal: `ClassFileWithoutPartitions`; `FileNotOurs`: there is a file that this program has not written; `FileNotWritten`.
    """
    if machine is not None:
        resolve(classes, machine)
    if not classes.value.get("partitions"):
        told = f"{classes.file} names classes only; the runtime makes its groups from partitions"
        raise Refusal("ClassFileWithoutPartitions", told, "write partitions: {default: {classes: {...}}}")
    text = render(classes)
    there = _read(target)
    if there == text:
        return "unchanged"
    if check:
        return "stale"
    if there is not None and not there.startswith(HEADER) and not force:
        told = f"{target} is there and was not written by noisegate"
        raise Refusal("FileNotOurs", told, "move it away, or overwrite it with --force")
    try:
        _replace(target, text)
    except OSError as error:
        raise Refusal("FileNotWritten", f"{target} cannot be written: {error.strerror}") from error
    return "written"


def _read(target: Path) -> str | None:
    try:
        return target.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refusal("FileNotWritten", f"{target} cannot be read: {error.strerror}") from error


def _replace(target: Path, text: str) -> None:
    """Write beside the target, sync, and rename: a reader, and a node that loses power, has the old or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
