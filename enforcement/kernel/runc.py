"""What the node's OCI runtime can do: `runc features` (runtime-spec, features.md).

The version says less than the features do: runc passes over fields of a container's spec that it does not know.
"""

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from noisegate.enforcement.refusal import Refusal

SECONDS: Final = 10.0
"""For `runc features`; it takes some 20 ms."""
_VERSION: Final = "org.opencontainers.runc.version"
_MEND: Final = "set runtime.runc of node.yaml to its command on the host, such as [/usr/local/sbin/runc]"


class RuncFeatures(NamedTuple):
    """Features of an OCI runtime; None: it does not say, which is not the same as no.

    Attributes:
        version: Of runc; empty: another runtime.
        spec: Newest version of the runtime specification.
        cgroup_v2: cgroup v2.
        systemd: The systemd cgroup driver.
        intel_rdt: `linux.intelRdt` of a container, so that it starts in a group of resctrl; runc says so from 1.2.
        rdt_schemata: `linux.intelRdt.schemata`; runc from 1.4.
        rdt_monitoring: `linux.intelRdt.enableMonitoring`; runc from 1.4.
        net_devices: `linux.netDevices`; runc from 1.4.
    """

    version: str
    spec: str
    cgroup_v2: bool | None
    systemd: bool | None
    intel_rdt: bool | None
    rdt_schemata: bool | None
    rdt_monitoring: bool | None
    net_devices: bool | None


def parse(text: str | bytes) -> RuncFeatures:
    """Read the JSON that `runc features` prints.

    Raises:
        ValueError: It is no JSON object.
    """
    features = json.loads(text)
    if not isinstance(features, dict):
        raise ValueError("no object")  # noqa: TRY004  (one error for all that is no features)

    def at(*path: str) -> Any:
        value: Any = features
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def flag(*path: str) -> bool | None:
        value = at("linux", *path)
        return value if isinstance(value, bool) else None

    return RuncFeatures(
        str(at("annotations", _VERSION) or ""),
        str(at("ociVersionMax") or ""),
        flag("cgroup", "v2"),
        flag("cgroup", "systemd"),
        flag("intelRdt", "enabled"),
        flag("intelRdt", "schemata"),
        flag("intelRdt", "monitoring"),
        flag("netDevices", "enabled"),
    )


def ask(command: Sequence[str], seconds: float = SECONDS) -> RuncFeatures:
    """Run the OCI runtime's `features` command.

    Args:
        command: What comes before `features`, such as `runc` or `chroot /host /usr/sbin/runc`.
        seconds: For the answer; then the command is killed.

    Raises:
        Refusal: `RuncFeaturesUnknown`: it did not answer, or in another form.
    """
    shown = " ".join([*command, "features"])
    try:
        done = subprocess.run(  # noqa: S603  (the command is the node's configuration)
            [*command, "features"], capture_output=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise Refusal("RuncFeaturesUnknown", f"{shown} ended with {done.returncode}: {said}", _MEND)
        return parse(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise Refusal("RuncFeaturesUnknown", f"{shown} did not answer within {seconds:g} s", _MEND) from error
    except OSError as error:
        raise Refusal("RuncFeaturesUnknown", f"{shown} cannot be run: {error.strerror}", _MEND) from error
    except ValueError as error:
        raise Refusal("RuncFeaturesUnknown", f"{shown} prints no features: {error}", _MEND) from error
