"""What the cluster has, out of manifests: networks, claims and storage classes as the checks look them up."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from noisegate.isolation.catalogue import Catalogue, Claim, Network, StorageClass
from noisegate.service.faults import ConfigError, Fault, Wrongs
from noisegate.service.manifests import Document

NETWORK: Final = ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition")
CLAIM: Final = ("v1", "PersistentVolumeClaim")
STORAGE_CLASS: Final = ("storage.k8s.io/v1", "StorageClass")

# The API server takes the beta key for the same thing (k8s.io/component-helpers, IsDefaultAnnotation).
DEFAULT_CLASS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


class Inventory(NamedTuple):
    """What the manifests hold. `notes` tell of objects that stand there twice and differ; the later one counts."""

    catalogue: Catalogue
    notes: tuple[Fault, ...] = ()


def build(documents: Iterable[Document], *, namespace: str = "default", complete: Iterable[str] = ()) -> Inventory:
    """Return what the documents say of the cluster; objects of other kinds are passed by.

    A kind is known as soon as one object of it is there: a file of networks alone must not make every claim a missing
    one. As with `kubectl apply`, the later of two objects of one name counts.

    Args:
        documents: In the order in which they would be applied.
        namespace: Namespace of namespaced objects that name none.
        complete: Kinds that are known even without an object: `networks`, `claims`, `storageClasses`.

    Raises:
        ConfigError: Objects of these kinds that have no name or a field of a wrong type.
    """
    seen: dict[str, dict[str, Any]] = {kind: {} for kind in ("networks", "claims", "storageClasses")}
    places: dict[tuple[str, str], Document] = {}
    faults: list[Fault] = []
    notes: list[Fault] = []
    for document in documents:
        row = _KINDS.get((document.api_version, document.kind))
        if row is None:
            continue
        kind, namespaced, reading = row
        wrongs = Wrongs(document.source, document.lines)
        if not document.name:
            wrongs.add("metadata.name", None, f"a {document.kind} needs a name")
        entry = reading(_Fields(document.value, wrongs))
        faults.extend(wrongs.faults)
        if wrongs.faults:
            continue
        name = f"{document.namespace or namespace}/{document.name}" if namespaced else document.name
        earlier = places.get((kind, name))
        if earlier is not None and seen[kind][name] != entry:
            told = f"{document.kind} {name} stands in {earlier.source}:{earlier.line} too and says something else"
            notes.append(
                Fault(document.source, document.line, 0, "", told, "this later one counts; remove one of them")
            )
        places[kind, name] = document
        seen[kind][name] = entry
    if faults:
        raise ConfigError(faults)
    whole = frozenset(complete)
    networks, claims, storage_classes = (found if found or kind in whole else None for kind, found in seen.items())
    return Inventory(Catalogue(networks, claims, storage_classes), tuple(notes))


def merge(catalogues: Iterable[Catalogue]) -> Catalogue:
    """Return everything the catalogues know; of two entries of one name the later one counts."""
    merged = Catalogue()
    for catalogue in catalogues:
        merged = Catalogue(*map(_joined, merged, catalogue))
    return merged


def _joined(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return {**first, **second}


class _Fields:
    """Typed reading of an object's fields; what has a wrong type is noted and read as absent."""

    def __init__(self, value: Mapping[str, Any], wrongs: Wrongs) -> None:
        self._value = value
        self._wrongs = wrongs

    def text(self, path: str) -> str:
        value = self._at(path)
        if value is None or isinstance(value, str):
            return value or ""
        self._wrongs.add(path, value, "a text is needed")
        return ""

    def annotations(self) -> dict[str, str]:
        value = self._at("metadata.annotations")
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrongs.add("metadata.annotations", value, "a mapping (lines of key: value) is needed")
            return {}
        for key, text in value.items():
            if not isinstance(text, str):
                path = ("metadata", "annotations", key)
                self._wrongs.add(path, text, "a text is needed", "put the value in quotation marks")
        return value

    def _at(self, path: str) -> Any:
        value: Any = self._value
        above = ""
        for step in path.split("."):
            if value is None:
                return None
            if not isinstance(value, dict):
                self._wrongs.add(above, value, "a mapping (lines of key: value) is needed")
                return None
            value = value.get(step)
            above = f"{above}.{step}" if above else step
        return value


def _network(fields: _Fields) -> Network:
    return Network(fields.annotations(), fields.text("spec.config"))


def _claim(fields: _Fields) -> Claim:
    return Claim(fields.text("spec.storageClassName"))


def _storage_class(fields: _Fields) -> StorageClass:
    annotations = fields.annotations()
    return StorageClass(fields.text("provisioner"), any(annotations.get(key) == "true" for key in DEFAULT_CLASS))


_KINDS: Final[Mapping[tuple[str, str], tuple[str, bool, Callable[[_Fields], Any]]]] = {
    NETWORK: ("networks", True, _network),
    CLAIM: ("claims", True, _claim),
    STORAGE_CLASS: ("storageClasses", False, _storage_class),
}
