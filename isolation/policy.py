"""Settings that judge a request: what is allowed here. They never change what a request means."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Setting(BaseModel):
    """A group of settings: immutable, unknown keys refused, keys written with hyphens or camelCase as documented."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True)


class DiskPolicy(Setting):
    """The smallest disk limits that may be asked for: a tiny `io.max` stalls the file system for everyone."""

    minimum_bytes_per_second: int = Field(default=1 << 20, ge=1, alias="minimumBytesPerSecond")
    """Bytes per second, for limits of rbps and wbps. Default 1Mi."""
    minimum_operations_per_second: int = Field(default=10, ge=1, alias="minimumOperationsPerSecond")
    """Operations per second, given or derived. Default 10."""


class KuryrPolicy(Setting):
    """Kuryr's own mappings, under Kuryr's own option names (its `[sriov]` section)."""

    default_physnet_subnets: dict[str, str] = Field(default_factory=dict)
    """Physical network -> subnet UUID."""
    physnet_resource_mappings: dict[str, str] = Field(default_factory=dict)
    """Physical network -> resource name without prefix."""
    device_plugin_resource_prefix: str = "intel.com"
    """Prefix of the extended resource."""
    resource_driver_mappings: dict[str, str] = Field(default_factory=dict)
    """Resource name without prefix -> kernel or user-space driver."""


class SriovPolicy(Setting):
    """How SR-IOV attachments are judged."""

    strict: bool = False
    """Asking for fewer devices than the attachments need is an error instead of being topped up."""
    missing_network: Literal["deny", "warn"] = Field(default="deny", alias="missingNetwork")
    """What a NetworkAttachmentDefinition that does not exist means for a pod. Workload templates always warn."""
    kuryr: KuryrPolicy = KuryrPolicy()


class CpuPolicy(Setting):
    """How exclusive cores are judged."""

    opt_out: bool = Field(default=False, alias="optOut")
    """Whether `cmk.intel.com/mutate: "false"` keeps a pod that asks for cores from being mutated."""


class Policy(Setting):
    """The `policy:` block of server.yaml."""

    disk: DiskPolicy = DiskPolicy()
    sriov: SriovPolicy = SriovPolicy()
    cpu: CpuPolicy = CpuPolicy()
    enforcement: Literal["off", "required"] = "off"
    """`required`: pods that ask for disk, network or an own RDT class run only where an enforcer holds it."""


DEFAULT_POLICY = Policy()
