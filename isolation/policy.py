"""Settings that judge a request: what is allowed here. They never change what a request means.

This is the `policy:` block of server.yaml. Its keys are written in camelCase, Kuryr's own in Kuryr's spelling.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from noisegate.isolation import quantity


class Setting(BaseModel):
    """A group of settings: immutable, unknown keys refused, and a key without a value stands for all defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_written(cls, value: Any) -> Any:
        return {} if value is None else value


def _amount(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return quantity.whole(value)
    except (quantity.NotAQuantityError, quantity.NotWholeError) as error:
        meant = quantity.suggest(value)
        raise ValueError(f"{error}" + (f"; write {meant}" if meant else "")) from None


Amount = Annotated[int, BeforeValidator(_amount), Field(ge=1)]
"""A whole number of base units of at least 1, written as a number or as a quantity such as 1Mi."""


def _off(value: Any) -> Any:
    # YAML 1.1 reads an unquoted off as false.
    return "off" if value is False else value


def _one_subnet_each(subnets: dict[str, str]) -> dict[str, str]:
    by_subnet: dict[str, str] = {}
    for network, subnet in subnets.items():
        other = by_subnet.setdefault(subnet, network)
        if other != network:
            raise ValueError(
                f"{other} and {network} have the same subnet {subnet}; each subnet leads to one physical network"
            )
    return subnets


class DiskPolicy(Setting):
    """The smallest disk limits that may be asked for: a tiny `io.max` stalls the file system for everyone."""

    minimum_bytes_per_second: Amount = Field(default=1 << 20, alias="minimumBytesPerSecond")
    """Bytes per second, for limits of rbps and wbps. Default 1Mi: the journal of a file system still gets on."""
    minimum_operations_per_second: Amount = Field(default=10, alias="minimumOperationsPerSecond")
    """Operations per second, given or derived. Default 10: fewer let a single fsync last for seconds."""


class KuryrPolicy(Setting):
    """Kuryr's own mappings, under Kuryr's own option names (its `[sriov]` section)."""

    default_physnet_subnets: Annotated[dict[str, str], AfterValidator(_one_subnet_each)] = Field(default_factory=dict)
    """Physical network -> subnet UUID. Default none: networks of Kuryr's are then unchecked."""
    physnet_resource_mappings: dict[str, str] = Field(default_factory=dict)
    """Physical network -> resource name without prefix. Default none: the resource is named as the physical network."""
    device_plugin_resource_prefix: str = Field(default="intel.com", min_length=1)
    """Prefix of the extended resource. Default intel.com, as Kuryr's."""
    resource_driver_mappings: dict[str, str] = Field(default_factory=dict)
    """Resource name without prefix -> kernel or user-space driver. Default none."""


class SriovPolicy(Setting):
    """How SR-IOV attachments are judged."""

    strict: bool = False
    """Asking for fewer devices than the attachments need is an error. Default false: they are topped up."""
    missing_network: Literal["deny", "warn"] = Field(default="deny", alias="missingNetwork")
    """What a NetworkAttachmentDefinition that does not exist means for a pod. Default deny: Multus would fail the
    sandbox later. Workload templates always warn, because Helm and GitOps tools create networks afterwards."""
    kuryr: KuryrPolicy = KuryrPolicy()
    """Kuryr's own settings."""


class CpuPolicy(Setting):
    """How exclusive cores are judged."""

    opt_out: bool = Field(default=False, alias="optOut")
    """Whether `cmk.intel.com/mutate: "false"` keeps a pod that asks for cores from being mutated. Default false: such
    a pod would run without its cores."""


class RdtPolicy(Setting):
    """Where the RDT classes are written down."""

    classes: str = Field(default="", min_length=1)
    """Path of the class file that webhook and nodes share. Default none: classes are unchecked, with a warning."""


class Policy(Setting):
    """The `policy:` block of server.yaml."""

    disk: DiskPolicy = DiskPolicy()
    """Disk limits."""
    sriov: SriovPolicy = SriovPolicy()
    """SR-IOV attachments."""
    cpu: CpuPolicy = CpuPolicy()
    """Exclusive cores."""
    rdt: RdtPolicy = RdtPolicy()
    """Cache and memory bandwidth classes."""
    exclude_namespaces: Annotated[tuple[str, ...], Field(strict=False)] = Field(default=(), alias="excludeNamespaces")
    """Namespaces, by name or glob, whose objects pass unread. Default none: the installed webhook configuration keeps
    system namespaces away already."""
    enforcement: Annotated[Literal["off", "required"], BeforeValidator(_off)] = "off"
    """`required`: pods that ask for disk, network or an own RDT class run only where an enforcer holds it. Default off:
    without enforcers no node would carry the labels that such pods then need."""


DEFAULT_POLICY = Policy()
"""What holds where server.yaml says nothing."""
