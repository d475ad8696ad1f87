"""Tiers of the tests that need more than Python: each is skipped by name where its needs cannot be had, or must not be."""

import os
from typing import Final, NoReturn

import pytest

REQUIRED: Final = "NOISEGATE_REQUIRE_TIERS"
"""Environment: comma list of tiers that may not be skipped."""


class UnavailableError(Exception):
    """Something that a tier needs is not there and cannot be had: why, and what to do."""


def absent(tier: str, error: UnavailableError) -> NoReturn:
    """Skip a tier by name, or fail where it is required."""
    if tier in os.environ.get(REQUIRED, "").split(","):
        pytest.fail(f"tier {tier}: {error}")
    pytest.skip(f"tier {tier}: {error}")
