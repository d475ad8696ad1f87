"""RFC 6902 operations as bytes."""

import base64
import json

import jsonpatch
import pytest

from noisegate.webhook.patch import Patch, escape


@pytest.mark.parametrize(("step", "expected"), [("name", "name"), ("a/b", "a~1b"), ("a~b", "a~0b"), ("~/", "~0~1")])
def test_escape(step: str, expected: str) -> None:
    """Steps are escaped as RFC 6901 says."""
    assert escape(step) == expected


def test_empty() -> None:
    """A patch without operations is false and an empty list."""
    patch = Patch()

    assert not patch
    assert patch.encoded() == b"[]"
    assert patch.operations() == []


def test_all_forms() -> None:
    """Members, elements and parents that are made once, applied in order."""
    patch = Patch()
    patch.set("/metadata/annotations/a~1b", "1")
    patch.append("/spec/list", {"name": "x"})
    made = patch.make("/spec/limits", {})
    made["cpu"] = "2"
    patch.make("/spec/limits", {})["memory"] = "1Gi"
    document = {"metadata": {"annotations": {"a/b": "0"}}, "spec": {"list": []}}

    assert json.loads(patch.encoded()) == patch.operations()
    assert json.loads(base64.b64decode(patch.base64())) == patch.operations()
    assert jsonpatch.apply_patch(document, patch.operations()) == {
        "metadata": {"annotations": {"a/b": "1"}},
        "spec": {"list": [{"name": "x"}], "limits": {"cpu": "2", "memory": "1Gi"}},
    }
    assert patch.operations() == [
        {"op": "add", "path": "/metadata/annotations/a~1b", "value": "1"},
        {"op": "add", "path": "/spec/list/-", "value": {"name": "x"}},
        {"op": "add", "path": "/spec/limits", "value": {"cpu": "2", "memory": "1Gi"}},
    ]
