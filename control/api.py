"""What the controller asks the API server for: objects by path, and writes that take effect only on what was read."""

import json
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException

from noisegate.cluster.connection import ApiError

SECONDS: Final = 5.0
"""For one call: a leader that waits longer should not lead."""

Object = dict[str, Any]


class Api:
    """A client of the API server, as whoever the configuration says.

    Args:
        api: An open client.
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api: Final = api

    @classmethod
    async def opened(cls, kubeconfig: str = "") -> Self:
        """Return a client.

        Args:
            kubeconfig: File; empty: as the ServiceAccount of the pod that this is.

        Raises:
            ApiError: There is no such configuration.
        """
        if kubeconfig and not Path(kubeconfig).is_file():  # noqa: ASYNC240  (once, before anything else runs)
            raise ApiError(0, f"{kubeconfig}: there is no such file")
        settings = client.Configuration()
        try:
            if kubeconfig:
                await config.load_kube_config(kubeconfig, client_configuration=settings)
            else:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise ApiError(0, f"{kubeconfig or 'this is no pod, and there is no --kubeconfig'}: {error}") from error
        return cls(client.ApiClient(settings))

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def get(self, path: str) -> Object | None:
        """Return an object or a list; None: it is not there.

        Raises:
            ApiError: There was no answer, or a refusal.
        """
        try:
            return await self._call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, path: str, value: Object) -> None:
        """Create an object under its list's path.

        Raises:
            ApiError: As `get`; 409: it is there already.
        """
        await self._call("POST", path, value)

    async def patch(self, path: str, read: Object, operations: list[Object]) -> None:
        """Change an object by operations of RFC 6902, if it still is as it was read.

        Raises:
            ApiError: As `get`; 409: it has changed since.
        """
        version = {"op": "replace", "path": "/metadata/resourceVersion", "value": read["metadata"]["resourceVersion"]}
        await self._call("PATCH", path, [version, *operations])

    async def _call(self, method: str, path: str, body: object = None) -> Object:
        kind = "application/json-patch+json" if method == "PATCH" else "application/json"
        try:
            value: Object = await self._api.call_api(
                path,
                method,
                header_params={"Accept": "application/json", "Content-Type": kind},
                body=body,
                auth_settings=["BearerToken"],
                response_types_map={200: "object", 201: "object"},
                _return_http_data_only=True,
                _request_timeout=SECONDS,
            )
        except ApiException as error:
            raise ApiError(int(error.status or 0), _told(error)) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = getattr(error, "os_error", error)
            raise ApiError(0, f"the API server does not answer: {str(reason) or type(reason).__name__}") from error
        return value


def _told(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason or "no reason was given")
