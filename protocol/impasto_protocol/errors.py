"""The one error tree of Impasto.

Every refusal and every failure, on the wire and inside the engine, is an `ImpastoError` with a stable `code`
(namespace.name), a sentence that says what to do, and whether trying the same again can help::

    ImpastoError
    ├── ProtocolError    protocol.bad_message  protocol.unknown_type  protocol.version  protocol.not_ready
    ├── AuthError        auth.denied  auth.wrong_code  auth.locked
    ├── RequestError     request.invalid_param  request.unknown_mode  request.missing_input  request.empty_selection
    │                    request.bad_geometry  request.bad_file  request.no_parameters  request.no_face
    ├── AssetError       asset.missing  asset.digest_mismatch  asset.too_large  asset.bad_image
    ├── JobError         job.unknown  job.conflict  job.queue_full  job.cancelled
    ├── ModelError       model.unknown  model.unidentified  model.unsupported  model.corrupt  model.unsafe
    ├── ResourceError    resource.out_of_memory  resource.disk_full  resource.worker_died  resource.server_died
    │                    resource.stopping  resource.no_spool
    │                    resource.connection_lost  resource.no_answer  resource.server_start
    │                    resource.no_torch  resource.incomplete_install  resource.vendor_failed
    │                    resource.home  resource.already_running  resource.cannot_listen  resource.beyond_loopback
    └── InternalError    internal.failure

`path` names the parameter or field at fault ("params.steps"), `data` holds plain values for machines.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Type

__all__ = [
    "AssetError",
    "AuthError",
    "ImpastoError",
    "InternalError",
    "JobError",
    "ModelError",
    "ProtocolError",
    "RequestError",
    "ResourceError",
]


class ImpastoError(Exception):
    """A failure with a stable code and a sentence that says what to do."""

    namespace = ""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        path: Optional[str] = None,
        data: Optional[Mapping[str, Any]] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.path = path
        self.data: Dict[str, Any] = dict(data or {})
        if self.namespace and not code.startswith(self.namespace + "."):
            raise ValueError(f"{type(self).__name__} cannot carry the code {code!r}")

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self.to_wire()))

    def to_wire(self) -> Dict[str, Any]:
        """The error as a plain map: code, message, retryable and, where they are known, path and data."""
        wire: Dict[str, Any] = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.path is not None:
            wire["path"] = self.path
        if self.data:
            wire["data"] = self.data
        return wire

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> ImpastoError:
        """Rebuild the error; an unknown namespace (a newer server) gives a plain `ImpastoError`."""
        code = str(wire.get("code", "internal.failure"))
        cls = _BY_NAMESPACE.get(code.split(".", 1)[0], ImpastoError)
        return _rebuild(cls, wire)


def _rebuild(cls: Type[ImpastoError], wire: Mapping[str, Any]) -> ImpastoError:
    data = wire.get("data")
    path = wire.get("path")
    return cls(
        str(wire.get("code", "internal.failure")),
        str(wire.get("message", "The server reported an error without a text.")),
        retryable=bool(wire.get("retryable", False)),
        path=str(path) if path is not None else None,
        data=data if isinstance(data, Mapping) else None,
    )


class ProtocolError(ImpastoError):
    """A frame or a message that breaks the rules of the wire.

    `request_id` and `job` are those of the message at fault where they could be read; they travel in the envelope.
    """

    namespace = "protocol"
    request_id: Optional[int] = None
    job: Optional[str] = None


class AuthError(ImpastoError):
    """Who is asking could not be established."""

    namespace = "auth"


class RequestError(ImpastoError):
    """What is asked cannot be done as asked."""

    namespace = "request"


class AssetError(ImpastoError):
    """A picture that was named or sent is missing or wrong."""

    namespace = "asset"


class JobError(ImpastoError):
    """The job itself: unknown, in conflict, refused by the queue, cancelled."""

    namespace = "job"


class ModelError(ImpastoError):
    """A model file that is unknown, foreign, damaged or unsafe."""

    namespace = "model"


class ResourceError(ImpastoError):
    """The machine: memory, disk, the worker process."""

    namespace = "resource"


class InternalError(ImpastoError):
    """A defect of Impasto; the log of the server has the traceback under the incident in `data`."""

    namespace = "internal"


_BY_NAMESPACE: Dict[str, Type[ImpastoError]] = {
    cls.namespace: cls
    for cls in (
        ProtocolError,
        AuthError,
        RequestError,
        AssetError,
        JobError,
        ModelError,
        ResourceError,
        InternalError,
    )
}
