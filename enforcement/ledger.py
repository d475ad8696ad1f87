"""What was done to this node for each pod, and what was there before: one file per pod, written before the kernel is.

    <folder>/pods/<uid>.json      {"version": 1, "boot": ..., "checksum": ..., "record": {...}}
    <folder>/damaged/             files that could not be read, the newest few, for a person to look at

The folder is on a tmpfs, so a record lives exactly as long as the kernel state that it describes; one that outlived its
boot all the same is dropped. A file is replaced as a whole: whoever dies in between leaves the old record or the new one.
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from errno import errorcode
from pathlib import Path
from typing import Final, NamedTuple, Self
from urllib.parse import quote, unquote

import msgspec

from noisegate.enforcement.actions import Device, Interface, IoLimits, Rates
from noisegate.enforcement.intent.intent import Remembered
from noisegate.enforcement.refusal import Refusal

VERSION: Final = 1
MOST_DAMAGED: Final = 16
"""Files kept in `damaged/`."""
LARGEST: Final = 4 << 20
"""Bytes of a file: annotations are at most 256 KiB together, and JSON may escape every byte of them."""


class _Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a record."""


class IoSet(_Frozen, frozen=True):
    """One line of a pod's `io.max`.

    Attributes:
        device: Of the line.
        before: What stood there before the first write of ours.
        wanted: What we write, or have written.
    """

    device: Device
    before: IoLimits
    wanted: IoLimits


class Shaped(_Frozen, frozen=True):
    """A pod's interface under rates. What on it is ours bears our mark in the kernel itself.

    Attributes:
        interface: The host's end.
        ifb: Name of the ifb device for what the pod sends; empty: there is none.
        rates: What we set, or have set.
    """

    interface: Interface
    ifb: str
    rates: Rates


class Placed(_Frozen, frozen=True):
    """A container that was created.

    Attributes:
        id: The runtime's.
        name: In the pod.
        places: Volume -> throttled device, of those that ask and that this container has; `*`: its writable layer.
        rdt_class: The class it was put into; empty: none.
    """

    id: str
    name: str
    places: dict[str, Device]
    rdt_class: str = ""


class Record(_Frozen, frozen=True):
    """Everything that is to be known of a pod to hold its limits, to change them and to undo them.

    Attributes:
        uid: Of the pod, as the runtime knows it.
        namespace: Its namespace.
        name: Its name.
        intent: What is in force.
        sandbox: The runtime's id of its sandbox; empty: that has stopped, and there is no other yet.
        cgroup: Of the pod, from the root of the hierarchy.
        inode: Of that folder: another folder of the same path is another cgroup.
        netns: Path of its network namespace; empty: it has none of its own.
        io: By device, each at most once.
        network: None: its interface is not shaped.
        containers: Those that were created and not yet removed.
    """

    uid: str
    namespace: str
    name: str
    intent: Remembered
    sandbox: str
    cgroup: str
    inode: int
    netns: str = ""
    io: tuple[IoSet, ...] = ()
    network: Shaped | None = None
    containers: tuple[Placed, ...] = ()


class Damage(NamedTuple):
    """A file that was not read.

    Attributes:
        file: Its name.
        told: What is wrong with it, and where it is now.
    """

    file: str
    told: str


class Unreadable(ValueError):  # noqa: N818  (it says what a file is)
    """The bytes are no record; the text says why."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    boot: str
    checksum: str
    record: msgspec.Raw


class _Version(msgspec.Struct):
    version: int


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode_version: Final = msgspec.json.Decoder(_Version).decode
_decode_file: Final = msgspec.json.Decoder(_File).decode
_decode_record: Final = msgspec.json.Decoder(Record).decode


def encode(record: Record, boot: str) -> bytes:
    """Return a record as it stands in its file."""
    body = _encode(record)
    return _encode(_File(VERSION, boot, _checksum(VERSION, boot, body), msgspec.Raw(body)))


def decode(data: bytes) -> tuple[Record, str]:
    """Return a record and the boot it was written in.

    Raises:
        Unreadable: The bytes are not those that were written, or those of a newer noisegate.
    """
    try:
        version = _decode_version(data).version
        if version > VERSION:
            raise Unreadable(f"it is of version {version}, and this noisegate reads {VERSION}: a newer one wrote it")
        file = _decode_file(data)
        if file.checksum != _checksum(file.version, file.boot, bytes(file.record)):
            raise Unreadable("its checksum is not that of its content")
        return _decode_record(file.record), file.boot
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"it is cut short or changed: {error}") from error


def _checksum(version: int, boot: str, body: bytes) -> str:
    return hashlib.blake2b(f"{version} {boot}\n".encode() + body, digest_size=16).hexdigest()


class Ledger:
    """The records of this node, in memory and, before anything is done, in files. May be used from several threads.

    Args:
        folder: Where it is kept.
        boot: Identifies the boot of the machine: /proc/sys/kernel/random/boot_id.

    Attributes:
        damaged: Files that could not be read when it was opened.
        lost: uids of the pods that they were of, until these are forgotten: what was done for them is not known.
        outlived: Number of records of an earlier boot that were dropped then.
    """

    def __init__(self, folder: Path, boot: str) -> None:
        self.damaged: tuple[Damage, ...] = ()
        self.lost: Final[set[str]] = set()
        self.outlived = 0
        self._boot: Final = boot
        self._pods: Final = folder / "pods"
        self._aside: Final = folder / "damaged"
        self._records: Final[dict[str, Record]] = {}
        self._lock: Final = threading.Lock()

    @classmethod
    def open(cls, folder: Path, boot: str) -> Self:
        """Read every record there is. A file that cannot be read is set aside and reported, and stops nothing.

        Raises:
            OSError: The folder itself cannot be made or listed.
        """
        ledger = cls(folder, boot)
        for path in (folder, ledger._pods, ledger._aside):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        ledger.damaged = tuple(ledger._read_all())
        ledger.lost.update(unquote(damage.file.removesuffix(".json")) for damage in ledger.damaged)
        ledger._thin_out()
        return ledger

    def get(self, uid: str) -> Record | None:
        """Return the record of a pod."""
        return self._records.get(uid)

    def all(self) -> tuple[Record, ...]:
        """Return every record."""
        with self._lock:
            return tuple(self._records.values())

    def put(self, record: Record) -> None:
        """Write a record down; when this returns, it is there whatever happens to this process.

        Raises:
            Refusal: It could not be written, so nothing may be done to the kernel. In force is the record before it.
        """
        with self._lock:
            if self._records.get(record.uid) == record:
                return
            try:
                self._replace(self._file(record.uid), encode(record, self._boot))
            except OSError as error:
                told = f"{self._pods}: the record of the pod cannot be written: {_named(error)}"
                mend = "make room there, or mount a tmpfs that can be written"
                raise Refusal("LedgerNotWritten", told, mend) from error
            self._records[record.uid] = record

    def forget(self, uid: str) -> None:
        """Drop the record of a pod, once everything it tells of is undone.

        Raises:
            Refusal: The file cannot be removed; the record stays.
        """
        with self._lock:
            try:
                self._file(uid).unlink(missing_ok=True)
                _flush(self._pods)
            except OSError as error:
                told = f"{self._pods}: the record of the pod cannot be removed: {_named(error)}"
                raise Refusal("LedgerNotWritten", told, "mount a tmpfs there that can be written") from error
            self._records.pop(uid, None)
            self.lost.discard(uid)

    def _file(self, uid: str) -> Path:
        # A static pod's uid is whatever its author wrote.
        return self._pods / f"{quote(uid, safe='')}.json"

    def _replace(self, path: Path, data: bytes) -> None:
        # mkstemp makes files of mode 0600 under names that nobody else has.
        number, half = tempfile.mkstemp(dir=self._pods, prefix=".", suffix=".tmp")
        try:
            with open(number, "wb") as file:  # noqa: PTH123  (a descriptor)
                file.write(data)
                file.flush()
                os.fsync(number)
            os.rename(half, path)  # noqa: PTH104  (both are names here)
        except BaseException:
            with suppress(OSError):
                os.unlink(half)  # noqa: PTH108
            raise
        _flush(self._pods)

    def _read_all(self) -> Iterator[Damage]:
        for path in sorted(self._pods.iterdir()):
            if path.suffix == ".tmp":
                # Whoever wrote it died; what it replaces is still there.
                with suppress(OSError):
                    path.unlink()
                continue
            try:
                record, boot = decode(_bytes_of(path))
                if path != self._file(record.uid):
                    raise Unreadable(f"it holds the record of pod {record.uid}")
            except (Unreadable, OSError) as error:
                yield Damage(path.name, f"{_named(error)}; {self._set_aside(path)}")
                continue
            if boot == self._boot:
                self._records[record.uid] = record
            else:
                self.outlived += 1
                with suppress(OSError):
                    path.unlink()

    def _set_aside(self, path: Path) -> str:
        try:
            path.rename(self._aside / path.name)
        except OSError as error:
            return f"it stays where it is: {_named(error)}"
        return f"it is in {self._aside} now"

    def _thin_out(self) -> None:
        with suppress(OSError):
            kept = sorted(self._aside.iterdir(), key=lambda path: path.lstat().st_ctime_ns, reverse=True)
            for path in kept[MOST_DAMAGED:]:
                path.unlink()


def _bytes_of(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unreadable(f"it is larger than {LARGEST >> 20} MiB")
    return data


def _flush(folder: Path) -> None:
    """Have the names in a folder written down."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _named(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{errorcode.get(error.errno, error.errno)} ({os.strerror(error.errno)})"
    return str(error)
