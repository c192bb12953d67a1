"""A defect becomes a typed error for the client and a traceback in the log, joined by an incident id."""

from __future__ import annotations

import logging
import secrets

from impasto_protocol.errors import ImpastoError, InternalError

__all__ = ["as_impasto_error"]

log = logging.getLogger("impasto")


def as_impasto_error(error: Exception, where: str) -> ImpastoError:
    """`error` itself where it is typed; else InternalError `internal.failure`, whose incident the log explains."""
    if isinstance(error, ImpastoError):
        return error
    incident = secrets.token_hex(4)
    log.error("incident %s in %s", incident, where, exc_info=error)
    return InternalError(
        "internal.failure",
        f"The server has a defect here; its log tells more under incident {incident}. Please report it.",
        data={"incident": incident},
    )
