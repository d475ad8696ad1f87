"""Every code there is, in order: what `docs/problems.md` and `noisegate problems` tell of isolation's part."""

from typing import Final

from noisegate.isolation import (
    bounds,
    cpu,
    devices,
    disk,
    kuryr,
    nad,
    network,
    networks,
    payload,
    podnetinfo,
    quantity,
    rdt,
    reserved,
    speed,
    sriov,
    storage,
)
from noisegate.isolation.problems import Code

MODULES: Final = (
    payload,
    quantity,
    bounds,
    speed,
    storage,
    disk,
    network,
    rdt,
    networks,
    sriov,
    devices,
    kuryr,
    nad,
    podnetinfo,
    cpu,
    reserved,
)

CODES: Final[tuple[Code, ...]] = tuple(sorted(code for module in MODULES for code in module.CODES))
