"""Facts of the Pod API that merging needs: field names, merge keys, and what the API server fills in.

Source: k8s.io/api/core/v1 types (patchMergeKey tags) and its defaulting, Kubernetes 1.34 to 1.37.
"""

from collections.abc import Mapping
from typing import Any, Final

from noisegate.isolation.quantity import parse

MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "initContainers": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "ports": ("containerPort", "protocol"),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "sysctls": ("name",),
    "resizePolicy": ("resourceName",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""Lists whose elements have an identity; elements of every other list are one by their whole value."""

WHOLE_LISTS: Final = frozenset({"command", "args"})
"""Lists that are one value: order and repetition count, and half of one is none."""

QUANTITY_MAPS: Final = frozenset({"limits", "requests", "overhead"})
"""Maps of quantities, which the API server rewrites: `1000m` becomes `1`."""

LISTS: Final = frozenset(MERGE_KEYS) | WHOLE_LISTS | {"envFrom", "readinessGates", "tolerations"}
"""Fields that are lists."""

MAPS: Final = QUANTITY_MAPS | {
    "affinity", "annotations", "capabilities", "dnsConfig", "labels", "lifecycle", "livenessProbe", "nodeSelector",
    "readinessProbe", "resources", "securityContext", "startupProbe",
}  # fmt: skip
"""Fields that are maps, of those that a rule may set."""

KEY_DEFAULTS: Final[Mapping[str, str]] = {"protocol": "TCP"}

POD_SPEC: Final = frozenset(
    {
        "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy",
        "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers",
        "hostname", "hostnameOverride", "imagePullSecrets", "initContainers", "nodeName", "nodeSelector", "os",
        "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "resourceClaims", "resources",
        "restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates", "securityContext", "serviceAccount",
        "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds",
        "tolerations", "topologySpreadConstraints", "volumes", "workloadRef",
    }
)  # fmt: skip
CONTAINER: Final = frozenset(
    {
        "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports",
        "readinessProbe", "resizePolicy", "resources", "restartPolicy", "restartPolicyRules", "securityContext",
        "startupProbe", "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty",
        "volumeDevices", "volumeMounts", "workingDir",
    }
)  # fmt: skip

# What the API server writes into a volume or port that leaves it out.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "defaultMode": 420,
    "type": "",
    "apiVersion": "v1",
    "expirationSeconds": 3600,
    "readOnly": False,
    "divisor": "0",
    "volumeMode": "Filesystem",
    "protocol": "TCP",
}
# What it fills in from other fields: any value is as good as none.
_COMPUTED: Final = frozenset({"pullPolicy", "hostPort"})
ZERO: Final = ("0", 0)
"""Amounts of a resource that ask for nothing, as the API server and as hand-written manifests spell them."""
_QUANTITY_FIELDS: Final = frozenset({"sizeLimit", "divisor", "storage"})


def same(wanted: Any, existing: Any, field: str = "") -> bool:
    """Tell whether two API values are one, given what the API server fills in and how it rewrites quantities."""
    if wanted == existing and type(wanted) is type(existing):
        return True
    if isinstance(wanted, dict) and isinstance(existing, dict):
        for name, item in wanted.items():
            if not same(item, existing.get(name, _DEFAULTS.get(name)), name):
                return False
        for name, item in existing.items():
            if name not in wanted and name not in _COMPUTED and not same(_DEFAULTS.get(name), item, name):
                return False
        return True
    if isinstance(wanted, list | tuple) and isinstance(existing, list | tuple):
        return len(wanted) == len(existing) and all(same(a, b) for a, b in zip(wanted, existing, strict=True))
    return field in _QUANTITY_FIELDS and same_quantity(wanted, existing)


def same_quantity(wanted: object, existing: object) -> bool:
    """Tell whether two quantities are one amount."""
    try:
        return parse(str(wanted)) == parse(str(existing))
    except ValueError:
        return False


def covers(existing: Any, wanted: Any) -> bool:
    """Tell whether everything that is wanted is there, whatever is there besides.

    So are containers compared: the API server, its plugins and other webhooks all add to them.
    """
    if isinstance(wanted, dict):
        return isinstance(existing, dict) and all(covers(existing.get(name), item) for name, item in wanted.items())
    if isinstance(wanted, list):
        return isinstance(existing, list) and all(any(covers(item, element) for item in existing) for element in wanted)
    return same(wanted, existing) or (wanted is not None and existing is not None and same_quantity(wanted, existing))
