"""What takes several messages: a snapshot sent and submitted, an output fetched, a catalogue with all checkpoints."""

from __future__ import annotations

import threading
from typing import Any, Dict, Mapping, Optional, Union

from impasto_protocol import messages as wire
from impasto_protocol.errors import AssetError, ImpastoError, ResourceError
from impasto_protocol.images import ImageFormat
from impasto_protocol.parts import HistoryEntry

from .client import Client
from .document import ResultLayer, Snapshot
from .events import ServerCatalog

__all__ = ["fetch_result", "send_job", "whole_catalog"]


def send_job(
    client: Client,
    job_id: str,
    mode: str,
    params: Mapping[str, Any],
    snapshot: Snapshot,
    preview: Optional[wire.PreviewWish],
    stop: threading.Event,
    sent: Dict[str, wire.InputPicture],
    on_disconnect: str = "keep",
) -> int:
    """Upload what the server lacks and submit; the number of jobs before it.

    `sent` keeps what the pictures were called: where a connection was lost before the answer, the same call again
    says the same submit again, which the server recognises. Raises what the server answers, AssetError
    `asset.bad_image` for a snapshot whose buffers do not fit its box, and JobError `job.cancelled` where `stop` was
    set while uploading.
    """
    snapshot.check()
    attempts = 3 if sent else 2
    for attempt in range(attempts):
        try:
            if not sent:
                _upload(client, snapshot, stop, sent)
            # A picture says itself where it lies.
            box = snapshot.box if not sent else None
            wishes = (sent, snapshot.format, preview)
            return client.submit(job_id, mode, params, snapshot.canvas, *wishes, box=box, on_disconnect=on_disconnect)
        except ImpastoError as error:
            if error.code in ("resource.connection_lost", "resource.no_answer"):
                raise  # the job may have been accepted: it is asked for again as it was
            for picture in sent.values():
                client.give_back(picture.digest)
            sent.clear()
            # Of an earlier connection, or evicted between the upload and the submit: once more, then it is an error.
            if error.code != "asset.missing" or attempt == attempts - 1:
                raise
    raise AssertionError("unreachable")


def _upload(client: Client, snapshot: Snapshot, stop: threading.Event, sent: Dict[str, wire.InputPicture]) -> None:
    """Fill `sent` with what the pictures are called; it is empty again where the connection is lost meanwhile."""
    box = snapshot.box
    pictures = (
        ("image", snapshot.pixels, snapshot.format),
        ("backdrop", snapshot.backdrop, snapshot.format),
        ("mask", snapshot.mask, "l8"),
    )
    try:
        for name, pixels, format in pictures:
            if pixels:
                digest = client.upload(pixels, stop)
                sent[name] = wire.InputPicture(digest, box.width, box.height, format, box.x, box.y)
    except ResourceError as error:
        if error.code == "resource.connection_lost":
            sent.clear()
        raise


def fetch_result(client: Client, output: Union[wire.Output, HistoryEntry]) -> ResultLayer:
    """The layer of an announced or kept output. Raises AssetError where its bytes are gone or damaged."""
    format = ImageFormat(output.width, output.height, output.format)
    format.check(client.limits.pixels, "output")
    if (output.placement.width, output.placement.height) != (output.width, output.height):
        raise AssetError("asset.bad_image", "The result does not have the size of its place; update the server.")
    return ResultLayer(
        job_id=output.job,
        index=output.index,
        box=output.placement,
        pixels=client.fetch(output.digest, format.byte_count),
        format=output.format,
        name=output.name,
        stage=output.stage,
        alpha=output.alpha,
        seed=output.seed,
        recipe=output.info or {},
    )


def whole_catalog(client: Client, catalog: wire.Catalog) -> ServerCatalog:
    """The catalogue with all checkpoints, also those for which its message had no room."""
    models = list(catalog.models)
    total = len(models) if catalog.models_total is None else catalog.models_total
    if total > len(models):
        known = {model.get("id") for model in models}
        models += [m for m in client.models("checkpoint", page=wire.PAGE_LIMIT) if m.get("id") not in known]
    lists = (catalog.modes, tuple(models), catalog.samplers, catalog.schedules)
    return ServerCatalog(catalog.rev, *lists, catalog.device, max(total, len(models)))
