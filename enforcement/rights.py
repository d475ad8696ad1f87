"""What the enforcer may do at the API server, said where it is missing."""

from typing import Final

ROLE: Final = "noisegate-node"
"""ClusterRole of deploy/ that has the rights."""


def mended(trouble: str) -> str:
    """Return why a call failed, and where a right was missing, what to do."""
    forbidden = trouble.endswith("(403)") or "forbidden:" in trouble
    return f"{trouble}; bind the ClusterRole {ROLE} to noisegate's ServiceAccount" if forbidden else trouble
