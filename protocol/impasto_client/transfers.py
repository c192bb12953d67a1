"""What takes several messages: a snapshot sent and submitted, an output fetched, a catalogue with all models."""

from __future__ import annotations

import threading
from itertools import islice
from typing import Any, Dict, Iterable, List, Mapping, Optional, Union

from impasto_protocol import messages as wire
from impasto_protocol.errors import AssetError, ImpastoError, ResourceError
from impasto_protocol.images import ImageFormat
from impasto_protocol.parts import HistoryEntry
from impasto_protocol.schema import Mode

from .client import Client
from .document import ResultLayer, Snapshot
from .events import ServerCatalog

__all__ = ["chosen_kinds", "fetch_result", "send_job", "whole_catalog"]


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
    priority: str = "back",
    replaces: Optional[str] = None,
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
            box = snapshot.box if "image" not in sent else None
            wishes = (sent, snapshot.format, preview)
            place: Dict[str, Any] = dict(on_disconnect=on_disconnect, priority=priority, replaces=replaces)
            return client.submit(job_id, mode, params, snapshot.canvas, *wishes, box=box, **place)
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
        ("image", box, snapshot.pixels, snapshot.format),
        ("backdrop", box, snapshot.backdrop, snapshot.format),
        ("mask", box, snapshot.mask, "l8"),
        *((name, part.box, part.pixels, snapshot.format) for name, part in snapshot.pictures.items()),
    )
    try:
        for name, box, pixels, format in pictures:
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
    """The catalogue with the models of the kinds that parameters choose from, also those for which its message had no
    room: all checkpoints, and of every other kind the first MANY."""
    models = list(catalog.models)
    total = len(models) if catalog.models_total is None else catalog.models_total
    if total > len(models):
        for kind in reversed(chosen_kinds(catalog.modes)):
            asked = client.models(kind, page=wire.PAGE_LIMIT)
            found = list(asked if kind == "checkpoint" else islice(asked, MANY))
            models = found + [m for m in models if m.get("kind") != kind]
    lists = (catalog.modes, tuple(models), catalog.samplers, catalog.schedules)
    return ServerCatalog(catalog.rev, *lists, catalog.device, max(total, len(models)), catalog.presets or ())


MANY = 1000
"""No list of a panel is read to its end that is longer than this; the others are found by searching."""


def chosen_kinds(modes: Iterable[Mode]) -> List[str]:
    """The kinds of models that parameters of the modes choose from, checkpoints first."""
    kinds: Dict[str, None] = {"checkpoint": None}
    for mode in modes:
        for param in mode.params:
            for one in (param, *param.items):
                if one.choices.get("from") == "models" and isinstance(one.choices.get("kind"), str):
                    kinds[one.choices["kind"]] = None
    return list(kinds)
