"""A node's interfaces and what is put on them, as plain files: for tests of those who use `Links` and `Shaper`.

A stand-in, because a network namespace needs root, ends with its last process and cannot be looked at when a writer of
it was killed; these tests are about who calls when, and what is left. The real ones are tested against the kernel in
kernel/test_links.py and kernel/test_shaper.py, and all together in the tiers runtime and node.

What one message of rtnetlink does is one rename(2) here: a process that is killed at any moment leaves a whole state,
with any number of the parts made. Any number of processes may open the same folder.

    network = FakeNetwork(tmp_path / "network")
    interface = network.pod("/run/netns/a")
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote
from uuid import uuid4

import msgspec

from noisegate.enforcement.actions import Interface, Rates, Shape
from noisegate.enforcement.kernel.errors import TC, refusal
from noisegate.enforcement.kernel.links import GoneError, Links
from noisegate.enforcement.kernel.shaper import IFB, Shaper, Trace
from noisegate.enforcement.plan.network import Counters, Shaped
from noisegate.enforcement.refusal import Refusal


class VethLink(msgspec.Struct):
    """The host's end of a veth pair: our htb's rate, the ifb that our filter sends to, a foreign root qdisc's kind."""

    name: str
    foreign: str = ""
    htb: int | None = None
    redirect: str = ""


class Ifb(msgspec.Struct):
    """An ifb of ours; htb: the rate that holds on it."""

    htb: int | None = None


class FakeNetwork:
    """Interfaces of a node.

    Args:
        root: A folder, made where it is not there.
    """

    def __init__(self, root: Path) -> None:
        self._links: Final = root / "links"
        self._ifbs: Final = root / "ifbs"
        self._netns: Final = root / "netns"
        self._beside: Final = root / "beside"
        for folder in (self._links, self._ifbs, self._netns, self._beside):
            folder.mkdir(parents=True, exist_ok=True)

    def pod(self, netns: str, foreign: str = "") -> Interface:
        """Make the veth pair of a pod; `foreign` is a root qdisc that somebody else puts on the host's end."""
        taken = self._beside / "taken"
        number = 1 + (int(taken.read_text()) if taken.exists() else 0)
        taken.write_text(str(number))  # an index does not come again
        self.put_link(number, VethLink(f"veth{number}", foreign))
        (self._netns / quote(netns, safe="")).write_text(str(number))
        return Interface(number, f"veth{number}")

    def end(self, netns: str) -> None:
        """Let a network namespace go, and with it the veth pair; an ifb stays."""
        file = self._netns / quote(netns, safe="")
        if file.exists():
            (self._links / file.read_text()).unlink()
            file.unlink()

    def unlimit(self, interface: Interface) -> None:
        """Take our qdisc off an interface, as a stranger does."""
        self.put_link(interface.index, msgspec.structs.replace(self.link(interface), htb=None))

    def snapshot(self) -> dict[str, str]:
        """Return everything there is."""
        files = [*self._links.iterdir(), *self._ifbs.iterdir()]
        return {f"{file.parent.name}/{file.name}": file.read_text() for file in sorted(files)}

    def find(self, netns: str) -> int | None:
        """Return the index of the host's end of a namespace's eth0."""
        try:
            return int((self._netns / quote(netns, safe="")).read_text())
        except FileNotFoundError:
            return None

    def links(self) -> dict[int, VethLink]:
        """Return all interfaces by their index."""
        return {int(file.name): msgspec.json.decode(file.read_bytes(), type=VethLink) for file in self._links.iterdir()}

    def link(self, interface: Interface) -> VethLink:
        """Return an interface.

        Raises:
            GoneError: It is no more.
        """
        try:
            found = msgspec.json.decode((self._links / str(interface.index)).read_bytes(), type=VethLink)
        except FileNotFoundError:
            found = None
        if found is None or found.name != interface.name:
            raise GoneError(f"{interface.name} is no more")
        return found

    def ifb(self, name: str) -> Ifb | None:
        """Return an ifb."""
        try:
            return msgspec.json.decode((self._ifbs / name).read_bytes(), type=Ifb)
        except FileNotFoundError:
            return None

    def ifbs(self) -> list[str]:
        """Return the names of all."""
        return sorted(file.name for file in self._ifbs.iterdir())

    def put_link(self, number: int, link: VethLink) -> None:
        """Replace an interface's state."""
        self._put(self._links / str(number), link)

    def put_ifb(self, name: str, ifb: Ifb) -> None:
        """Replace an ifb's state."""
        self._put(self._ifbs / name, ifb)

    def delete_ifb(self, name: str) -> None:
        """Take an ifb away; nothing there is fine."""
        (self._ifbs / name).unlink(missing_ok=True)

    def _put(self, file: Path, value: msgspec.Struct) -> None:
        new = self._beside / f"new-{uuid4()}"
        new.write_bytes(msgspec.json.encode(value))
        os.rename(new, file)  # noqa: PTH104  (named as the kernel's call, which an audit hook counts)


class FakeLinks(Links):
    """Finds interfaces of a fake network."""

    def __init__(self, network: FakeNetwork) -> None:
        super().__init__()
        self._network: Final = network

    def find(self, netns: str) -> Interface:
        """See `Links.find`."""
        if not netns:
            raise Refusal("NetworkNamespaceUntold", "the runtime does not tell which network namespace the pod has")
        number = self._network.find(netns)
        if number is None:
            raise GoneError(f"{netns} is no network namespace any more")
        return Interface(number, f"veth{number}")

    def gone(self, interface: Interface) -> bool:
        """See `Links.gone`."""
        try:
            self._network.link(interface)
        except GoneError:
            return True
        return False


class FakeShaper(Shaper):
    """Shapes interfaces of a fake network.

    Attributes:
        fails: errno by `apply`, `remove`, `observe` or `ours`: what the kernel answers instead.
        applied: How often something was put on an interface.
    """

    def __init__(self, network: FakeNetwork) -> None:
        self.fails: Final[dict[str, int]] = {}
        self.applied = 0
        self._network: Final = network

    def observe(self, interface: Interface, ifb: str) -> Shaped:
        """See `Shaper.observe`."""
        self._may("observe", interface.name)
        link, device = self._network.link(interface), self._network.ifb(ifb)
        egress = device.htb if device is not None and link.redirect == ifb else None
        loose = egress is None and (device is not None or bool(link.redirect))
        return Shaped(Rates(link.htb, egress), loose, link.foreign, ifb=device is not None)

    def apply(self, shape: Shape) -> None:
        """See `Shaper.apply`: part after part, the redirection last."""
        self._may("apply", shape.interface.name)
        self.applied += 1
        network, (interface, ifb, rates) = self._network, (shape.interface, shape.ifb, shape.rates)
        link = network.link(interface)
        network.put_link(interface.index, msgspec.structs.replace(link, htb=rates.ingress))
        link = network.link(interface)
        if rates.egress is None:
            network.put_link(interface.index, msgspec.structs.replace(link, redirect=""))
            network.delete_ifb(ifb)
            return
        if network.ifb(ifb) is None:
            network.put_ifb(ifb, Ifb())
        network.put_ifb(ifb, Ifb(rates.egress))
        network.put_link(interface.index, msgspec.structs.replace(link, redirect=ifb))

    def remove(self, interface: Interface | None, ifb: str) -> None:
        """See `Shaper.remove`."""
        self._may("remove", interface.name if interface else ifb)
        with suppress(GoneError):
            if interface is not None:
                link = msgspec.structs.replace(self._network.link(interface), redirect="")
                self._network.put_link(interface.index, link)
                self._network.put_link(interface.index, msgspec.structs.replace(link, htb=None))
        if IFB.fullmatch(ifb):
            self._network.delete_ifb(ifb)

    def counters(self, interface: Interface, ifb: str) -> Counters:
        """See `Shaper.counters`: nothing is ever sent here."""
        self._network.link(interface)
        return Counters(0, 0 if self._network.ifb(ifb) else None, 0, 0)

    def ours(self) -> list[Trace]:
        """See `Shaper.ours`."""
        self._may("ours", "the node")
        sends = {number: link.redirect for number, link in self._network.links().items() if link.redirect or link.htb}
        names = {number: link.name for number, link in self._network.links().items()}
        alone = [Trace(None, name) for name in self._network.ifbs() if name not in sends.values()]
        return alone + [Trace(Interface(number, names[number]), ifb) for number, ifb in sends.items()]

    def _may(self, what: str, where: str) -> None:
        if what in self.fails:
            raise refusal(TC, self.fails[what], f"{what} on {where}")
