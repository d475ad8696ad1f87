"""Kubernetes objects, typed and partial."""

import msgspec
import pytest

from noisegate.webhook.objects import CronJob, NotThatObject, Pod, Workload, decode

pods = msgspec.json.Decoder(Pod)


def test_pod() -> None:
    """What is read is typed; all else is skipped."""
    pod = decode(
        pods,
        b'{"metadata": {"annotations": {"a": "b"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"x": []}, "spec": {'
        b'"hostNetwork": true, "serviceAccountName": "s", "nodeSelector": {"n": "1"}, "containers": [{"name": "app", "image": 5,'
        b'"env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}], "resources": {"limits": {"cpu": 2, "x": "1"}},'
        b'"volumeMounts": [{"name": "v", "mountPath": "/v"}], "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]}]}}',
    )

    (container,) = pod.spec.containers
    assert pod.metadata.annotations == {"a": "b"}
    assert pod.metadata.deletion_timestamp == "2026-01-01T00:00:00Z"
    assert (pod.spec.host_network, pod.spec.service_account_name, pod.spec.node_selector) == (True, "s", {"n": "1"})
    assert [(each.name, each.value, each.value_from) for each in container.env] == [("A", "1", None), ("B", None, {})]
    assert (container.resources.limits, container.resources.requests) == ({"cpu": 2, "x": "1"}, {})
    assert (container.volume_mounts[0].mount_path, container.volume_devices[0].device_path) == ("/v", "/dev/x")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"metadata": null, "spec": null}',
        '{"metadata": {}, "spec": {}}',
        '{"metadata": {"annotations": null}, "spec": {"containers": null, "volumes": null, "hostNetwork": null}}',
        '{"metadata": {"annotations": {}}, "spec": {"containers": [], "volumes": []}}',
    ],
)
def test_absent_null_and_empty(text: str) -> None:
    """Absent, null and empty are one and the same."""
    assert decode(pods, text.encode()) == Pod()


def test_nulls_deep_inside() -> None:
    """Nulls count as absent however deep they stand."""
    pod = decode(pods, b'{"spec": {"containers": [{"name": "a", "env": null, "resources": {"limits": null}}]}}')

    assert pod.spec.containers[0].env == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("[]", "Expected `object`, got `array`", id="list"),
        pytest.param('"x"', "Expected `object`, got `str`", id="string"),
        pytest.param(
            '{"spec": {"containers": {}}}', "Expected `array`, got `object` - at `$.spec.containers`", id="containers"
        ),
        pytest.param(
            '{"spec": {"containers": [null]}}',
            "Expected `object`, got `null` - at `$.spec.containers[0]`",
            id="null in a list",
        ),
        pytest.param(
            '{"metadata": {"annotations": {"a": 1}}}',
            "Expected `str`, got `int` - at `$.metadata.annotations[...]`",
            id="annotation",
        ),
        pytest.param(
            '{"spec": {"containers": [{}]}}',
            "Object missing required field `name` - at `$.spec.containers[0]`",
            id="no name",
        ),
        pytest.param(
            '{"spec": {"hostNetwork": "true"}}', "Expected `bool`, got `str` - at `$.spec.hostNetwork`", id="boolean"
        ),
        pytest.param("{", "Input data was truncated", id="no JSON"),
    ],
)
def test_not_that_object(text: str, told: str) -> None:
    """A field of another type is told with its place."""
    with pytest.raises(NotThatObject) as caught:
        decode(pods, text.encode())

    assert str(caught.value) == told


@pytest.mark.parametrize(
    "text",
    [
        '{"metadata": ' + "[" * 5000,
        '{"metadata": null, "x": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"metadata": {"name": "\\ud800"}}',
    ],
)
def test_hostile(text: str) -> None:
    """Deep nesting and half characters are told like any other wrong type."""
    with pytest.raises(NotThatObject):
        decode(pods, text.encode())


def test_templates() -> None:
    """Pod templates of workloads are pods."""
    workload = decode(
        msgspec.json.Decoder(Workload),
        b'{"spec": {"template": {"metadata": {"labels": {"a": "b"}}}, "volumeClaimTemplates": [{}]}}',
    )
    cronjob = decode(
        msgspec.json.Decoder(CronJob),
        b'{"spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}}}',
    )

    assert workload.spec.template == cronjob.spec.job_template.spec.template
    assert workload.spec.volume_claim_templates[0].metadata.name == ""
