"""The keys that are noisegate's own: which exist, and which a pod may not set (pod-api.md 8)."""

from collections.abc import Mapping
from typing import Final

from noisegate.isolation import keys
from noisegate.isolation.problems import Code, Findings, in_annotation, nearest

UNKNOWN_KEY: Final = Code(
    "NG801",
    "unknown-own-key",
    "No annotation of that name means anything to noisegate; a misspelt one would be ignored in silence.",
    'noisegate.io/rdt-clas: "gold"',
    'noisegate.io/rdt-class: "gold"',
)
RESERVED: Final = Code(
    "NG802",
    "reserved-key",
    "Where enforcement is required, noisegate says which NRI plugins a pod that asks for limits needs; a value of the pod's own would open a way round.",
    "required-plugins.noderesource.dev: '[]'",
    "(leave the annotation out)",
)
NODE_LABEL: Final = Code(
    "NG803",
    "reserved-node-label",
    "Where enforcement is required, a pod that asks for limits runs on nodes whose enforcer passed its preflight; the pod's own nodeSelector says otherwise.",
    'nodeSelector: {noisegate.io/enforces-disk: "false"}',
    "(leave the entry out)",
)
CODES: Final = (UNKNOWN_KEY, RESERVED, NODE_LABEL)

REQUIRED_VALUE: Final = f'["{keys.NRI_PLUGIN}"]'
"""What the required-plugins annotation of an asking pod says: a JSON list of NRI plugin base names."""


def check_known(annotations: Mapping[str, str], found: Findings) -> None:
    """Refuse annotations under `noisegate.io/` that do not exist."""
    for key in sorted(annotations):
        if keys.is_unknown(key):
            meant = nearest(key, keys.OWN_ANNOTATIONS)
            listed = ", ".join(sorted(keys.OWN_ANNOTATIONS))
            found.deny(
                UNKNOWN_KEY,
                in_annotation(key),
                annotations[key],
                f"noisegate knows no annotation {key}; it knows {listed}, {keys.RDT_OWN_CONTAINER}<container>",
                f"write {meant}" if meant else "",
            )


def check_enforced(
    annotations: Mapping[str, str], node_selector: Mapping[str, str], kinds: tuple[str, ...], found: Findings
) -> None:
    """Refuse what a pod that must be enforced may not say. `kinds`: what of `disk`, `network`, `rdt` it asks for."""
    for key in sorted(annotations):
        if key == keys.REQUIRED_PLUGINS and annotations[key] == REQUIRED_VALUE:
            continue
        if key.startswith((keys.REQUIRED_PLUGINS, keys.TOLERATE_MISSING_PLUGINS)):
            found.deny(
                RESERVED,
                in_annotation(key),
                annotations[key],
                f"this pod asks for limits that an enforcer must hold, so noisegate sets {keys.REQUIRED_PLUGINS} itself",
                "leave the annotation out",
            )
    for kind in kinds:
        label = keys.ENFORCES + kind
        value = node_selector.get(label, "true")
        if value != "true":
            found.deny(
                NODE_LABEL,
                f"spec.nodeSelector[{label}]",
                value,
                f'a pod that asks for {kind} limits runs only on nodes with {label}="true"',
                "leave the entry out",
            )
