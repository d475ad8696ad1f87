"""AdmissionReviews as an API server sends them: a pod of a Deployment, defaulted, with its tokens and managedFields.

The pods ask for all five kinds at once, or for nothing, or wrongly. Fields stand in the order of the Go types, without
blanks between them.
"""

import uuid
from collections.abc import Mapping
from random import Random
from typing import Any, Final, Literal

import msgspec

from bench import cluster

Size = Literal["7 KB", "21 KB"]
Asking = Literal["all", "nothing", "wrongly"]

BYTES: Final[Mapping[Size, int]] = {"7 KB": 7000, "21 KB": 21000}
"""Bytes of a whole AdmissionReview, within 5 %."""

_CONTAINERS: Final[Mapping[Size, tuple[str, ...]]] = {
    "7 KB": ("app",),
    "21 KB": ("app", "worker", "metrics"),
}
_CORES: Final = frozenset({"app", "worker"})
_VOLUMES: Final[Mapping[Size, tuple[str, ...]]] = {
    "7 KB": ("data", "scratch"),
    "21 KB": ("data", "scratch", "journal", "spool"),
}
_SPARE_ENV: Final[Mapping[tuple[Size, Asking], int]] = {
    ("7 KB", "all"): 2,
    ("7 KB", "wrongly"): 2,
    ("7 KB", "nothing"): 8,
    ("21 KB", "all"): 15,
    ("21 KB", "wrongly"): 15,
    ("21 KB", "nothing"): 18,
}
_ENV: Final = [
    "LOG_LEVEL",
    "LOG_FORMAT",
    "HTTP_PORT",
    "HTTP_TIMEOUT_SECONDS",
    "DATABASE_HOST",
    "DATABASE_NAME",
    "DATABASE_POOL_SIZE",
    "CACHE_TTL_SECONDS",
    "QUEUE_URL",
    "TRACE_ENDPOINT",
    "TRACE_SAMPLE_RATIO",
    "REGION",
    "FEATURE_FLAGS",
    "HEAP_LIMIT",
    "GC_PERCENT",
    "RETRY_LIMIT",
    "BATCH_SIZE",
    "LOCALE",
]


def create(size: Size, asking: Asking, seed: int) -> dict[str, Any]:
    """Return an AdmissionReview for a pod to be created. Equal arguments give equal reviews.

    Args:
        size: About how long the review is as JSON.
        asking: What the pod asks for: all five kinds, nothing, or all five wrongly.
        seed: Chooses names, uids and the amounts asked for; two seeds share no annotation of ours.
    """
    random = Random(f"{size} {asking} {seed}")
    return _review(_pod(size, asking, seed, random), random)


def replicas(size: Size, asking: Asking, workloads: int, count: int) -> list[bytes]:
    """Return reviews for `count` pods of `workloads` Deployments, in turn: replicas differ in the request's uid only."""
    templates = [create(size, asking, seed) for seed in range(workloads)]
    random = Random(f"{size} {asking} replicas")
    bodies: list[bytes] = []
    for index in range(count):
        review = templates[index % workloads]
        review["request"]["uid"] = _uid(random)
        bodies.append(encode(review))
    return bodies


def encode(review: Mapping[str, Any]) -> bytes:
    """Return a review as it goes over the wire."""
    return msgspec.json.encode(review) + b"\n"


def with_object(review: Mapping[str, Any], pod: object) -> dict[str, Any]:
    """Return the same review for another pod."""
    return {**review, "request": {**review["request"], "object": pod}}


def _review(pod: dict[str, Any], random: Random) -> dict[str, Any]:
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    resource = {"group": "", "version": "v1", "resource": "pods"}
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": _uid(random),
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "namespace": cluster.NAMESPACE,
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": _uid(random),
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
                "extra": {"authentication.kubernetes.io/credential-id": [f"JTI={_uid(random)}"]},
            },
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }


def _pod(size: Size, asking: Asking, seed: int, random: Random) -> dict[str, Any]:
    name = f"router-{seed:05d}"
    template_hash = f"{random.getrandbits(40):010x}"
    annotations = {
        "checksum/config": f"{random.getrandbits(256):064x}",
        "prometheus.io/port": "9090",
        "prometheus.io/scrape": "true",
    }
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "edge", "pod-template-hash": template_hash}
    if asking != "nothing":
        annotations = _annotations(size, asking, seed) | annotations
        labels[cluster.CACHE_LABEL] = "managed"
    token = f"kube-api-access-{random.getrandbits(25):05x}"
    spec = {
        "volumes": [*_volumes(size, name), _token_volume(token)],
        "containers": [_container(each, size, asking, seed, token) for each in _CONTAINERS[size]],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "securityContext": {"runAsUser": 10001, "runAsNonRoot": True, "fsGroup": 10001},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
            {
                "key": "node.kubernetes.io/unreachable",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    if size == "21 KB":
        spec = {
            "volumes": spec.pop("volumes"),
            "initContainers": [_container("init", size, asking, seed, token)],
            **spec,
        }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-{template_hash}", "uid": _uid(random)}
    metadata: dict[str, Any] = {
        "generateName": f"{name}-{template_hash}-",
        "creationTimestamp": None,
        "labels": labels,
        "annotations": dict(sorted(annotations.items())),
        "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
    }
    fields = {"f:metadata": _metadata_fields(metadata), "f:spec": _fields(_as_written(spec))}
    metadata["managedFields"] = [
        {
            "manager": "kube-controller-manager",
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2026-05-04T03:02:01Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }
    ]
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": {}}


def _annotations(size: Size, asking: Asking, seed: int) -> dict[str, str]:
    volumes = _VOLUMES[size]
    right = asking == "all"
    disk = {
        volume: {
            "requests": {"rbps": f"{50 + seed}Mi/4k", "wbps": f"{20 + seed}Mi/4k"},
            "limits": {"rbps": f"{100 + 2 * seed}Mi/4k", "wbps": f"{40 + 2 * seed}Mi/4k" if right else "40MiB/4k"},
        }
        for volume in volumes
    }
    network = {
        "requests": {"ingress": f"{100 + seed}M", "egress": f"{50 + seed}M"},
        "limits": {"ingress": f"{200 + 2 * seed}M", "egress": f"{100 + 2 * seed}M" if right else "100Mbps"},
    }
    first = cluster.NETWORKS[seed % len(cluster.NETWORKS)]
    second = cluster.NETWORKS[(seed // 2 + 3) % len(cluster.NETWORKS)]
    if size == "7 KB":
        networks = f"{first}@n{seed}a,{cluster.NAMESPACE}/{second}@n{seed}b"
    else:
        elements = [
            {"name": first, "namespace": cluster.NAMESPACE, "interface": f"n{seed}a"},
            {"name": second, "interface": f"n{seed}b", "mac": f"02:00:00:{seed >> 8 & 255:02x}:{seed & 255:02x}:01"},
            {"name": first, "interface": f"n{seed}c", "ips": [f"10.1.{seed >> 8 & 255}.{seed & 255}/16"]},
        ]
        networks = msgspec.json.encode(elements).decode()
    return {
        "blockio.kubernetes.io/resources": msgspec.json.encode(disk).decode(),
        "networkio.kubernetes.io/resources": msgspec.json.encode(network).decode(),
        "rdt.resources.beta.kubernetes.io/container.app": cluster.CLASSES[seed % len(cluster.CLASSES)]
        if right
        else "golden",
        "k8s.v1.cni.cncf.io/networks": networks if right else networks + "/x",
    }


def _volumes(size: Size, name: str) -> list[dict[str, Any]]:
    return [
        {"name": volume, "persistentVolumeClaim": {"claimName": cluster.CLAIM}}
        if volume == "data"
        else {"name": volume, "emptyDir": {"sizeLimit": "10Gi"}}
        for volume in _VOLUMES[size]
    ] + [{"name": "config", "configMap": {"name": f"{name}-config", "defaultMode": 420}}]


def _token_volume(name: str) -> dict[str, Any]:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
            ],
            "defaultMode": 420,
        },
    }


def _container(name: str, size: Size, asking: Asking, seed: int, token: str) -> dict[str, Any]:
    init = name == "init"
    env: list[dict[str, Any]] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
    ]
    env += [
        {"name": key, "value": f"{key.lower()[:9]}-{seed}"} for key in _ENV[: 1 if init else _SPARE_ENV[size, asking]]
    ]
    resources: dict[str, dict[str, str]] = {
        "limits": {"cpu": "2", "memory": "4Gi"},
        "requests": {"cpu": "500m", "memory": "1Gi"},
    }
    if asking != "nothing" and name in _CORES:
        for quantities in resources.values():
            quantities["cmk.intel.com/exclusive-cores"] = str(1 + seed % 8) if asking == "all" else "1500m"
    mounts: list[dict[str, Any]] = [{"name": volume, "mountPath": f"/var/lib/{volume}"} for volume in _VOLUMES[size]]
    mounts += [
        {"name": "config", "readOnly": True, "mountPath": "/etc/router"},
        {"name": token, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ]
    container: dict[str, Any] = {
        "name": name,
        "image": f"registry.example/edge/{name}:1.{seed}.0",
        "args": [f"--config=/etc/router/{name}.yaml", "--listen=:8080"],
        "env": env,
        "resources": resources,
        "volumeMounts": mounts,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
        },
    }
    if not init:
        container["ports"] = [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
        container["livenessProbe"] = _probe("/healthz")
        container["readinessProbe"] = _probe("/readyz")
    order = ["name", "image", "args", "ports", "env", "resources", "volumeMounts", "livenessProbe", "readinessProbe"]
    return {key: container[key] for key in order if key in container} | container


def _probe(path: str) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


# What admission plugins fill in before webhooks are called belongs to no manager.
_FILLED_IN: Final = frozenset({"serviceAccount", "serviceAccountName", "tolerations", "priority", "preemptionPolicy"})
_MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "volumes": ("name",),
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
}


def _as_written(spec: Mapping[str, Any]) -> dict[str, Any]:
    def written(named: Mapping[str, Any]) -> bool:
        return not str(named["name"]).startswith("kube-api-access-")

    kept = {key: value for key, value in spec.items() if key not in _FILLED_IN}
    kept["volumes"] = [volume for volume in kept["volumes"] if written(volume)]
    for field in ("containers", "initContainers"):
        if field in kept:
            kept[field] = [
                {**each, "volumeMounts": [mount for mount in each["volumeMounts"] if written(mount)]}
                for each in kept[field]
            ]
    return kept


def _metadata_fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"f:generateName": {}}
    for field in ("annotations", "labels", "ownerReferences"):
        fields[f"f:{field}"] = {".": {}, **_fields(metadata[field], field)}
    for owner in fields["f:ownerReferences"]:
        # metav1.OwnerReference is an atomic struct.
        fields["f:ownerReferences"][owner] = {}
    return fields


def _fields(value: Any, field: str = "") -> dict[str, Any]:
    """Return a value's fields as structured-merge-diff writes them (FieldsV1)."""
    if isinstance(value, dict):
        return {f"f:{key}": _with_self(item, key) for key, item in value.items()}
    if isinstance(value, list) and field in _MERGE_KEYS:
        return {
            "k:" + msgspec.json.encode({key: element[key] for key in _MERGE_KEYS[field]}).decode(): {
                ".": {},
                **_fields(element),
            }
            for element in value
        }
    return {}


def _with_self(value: Any, field: str) -> dict[str, Any]:
    fields = _fields(value, field)
    whole = field in _MERGE_KEYS and field not in ("containers", "initContainers")
    return {".": {}, **fields} if fields and (whole or isinstance(value, dict)) else fields


def _uid(random: Random) -> str:
    return str(uuid.UUID(int=random.getrandbits(128), version=4))
