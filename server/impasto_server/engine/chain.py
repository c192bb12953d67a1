"""A chain: jobs one after the other as one, each beginning with the picture that the one before made.

    txt2img (four variants) -> upscale (of the second) -> refine

What a link makes is told as soon as it is there, so that it stays whatever becomes of the next one; its recipe says
under `then` what was still to be done, and so where to go on after a crash or an edit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size

from .jobs import Emit, Event, Job, Layer, Link, Pixels, Result
from .modes import MODES, FaceSwap, Inpaint, Upscale
from .planning import outputs_of

__all__ = ["CHAINABLE", "links_left", "next_job", "outputs_expected", "picture_after", "run_chain"]

CHAINABLE = tuple(
    mode
    for mode, (_, _, inputs) in MODES.items()
    if mode != "annotate" and [i.name for i in inputs if i.required] == ["image"]
)
"""Modes that can follow: those that need a picture and nothing else."""


def run_chain(job: Job, emit: Emit, run: Callable[[Job, Emit], Result]) -> Result:
    """Each link by `run`. Layers are counted as they come; after an upscale their place is in the new document.

    The result has the seeds of all, and what the last one ran, with all of them under `chain`.
    """
    results: list[Result] = []
    while True:
        layers: list[Layer] = []

        def told(event: Event, job: Job = job, layers: list[Layer] = layers) -> None:
            if isinstance(event, Layer):
                event = _placed(event, job)
                layers.append(event)
            emit(event)

        results.append(run(job, told))
        if not job.chain.then:
            break
        job = next_job(job, layers)
    seeds = tuple(seed for result in results for seed in result.seeds)
    # The timings are the report's, which counts on from link to link.
    return Result(seeds, results[-1].timings, {**results[-1].ran, "chain": [dict(each.ran) for each in results]})


def next_job(job: Job, layers: Sequence[Layer]) -> Job:
    """The next link, over the picture that it picks of the `layers` of `job`, as the chain told them.

    Raises RequestError `request.invalid_param` where there is no such picture.
    """
    link, *rest = job.chain.then
    if not 0 <= link.pick < len(layers):
        raise RequestError(
            "request.invalid_param",
            f"There is no picture {link.pick} for {link.job.mode} to go on with; {len(layers)} were made, from 0 on.",
            path="then",
        )
    layer = layers[link.pick]
    picture, at = picture_after(job, layer)
    chain = replace(job.chain, then=tuple(rest), index=job.chain.index + len(layers), origin=at)
    size = Size(picture.shape[1], picture.shape[0])
    whole = Box.of_size(size)
    return replace(link.job, id=job.id, preview=job.preview, canvas=size, box=whole, image=picture, chain=chain)


def picture_after(job: Job, layer: Layer) -> tuple[Pixels, tuple[int, int]]:
    """The picture as it is after a job, RGBA, and where its corner lies in the document."""
    if not isinstance(job.params, (Inpaint, FaceSwap)) or job.image is None:
        return layer.pixels, (layer.box.x, layer.box.y)
    whole, box = job.image.copy(), layer.box
    x, y = box.x - job.box.x, box.y - job.box.y
    under = whole[y : y + box.height, x : x + box.width]
    share = layer.pixels[..., 3:].astype(np.float32) / 255
    below = under[..., 3:].astype(np.float32) / 255 * (1 - share)
    alpha = share + below
    color = layer.pixels[..., :3] * share + under[..., :3] * below
    mixed = np.divide(color, alpha, out=np.zeros_like(color), where=alpha > 0)
    under[...] = np.rint(np.concatenate([mixed, alpha * 255], axis=-1)).astype(np.uint8)
    return whole, (job.box.x, job.box.y)


def outputs_expected(job: Job) -> int:
    """How many layers one link makes."""
    return sum(outputs_of(cell.params) for cell in job.cells) if job.cells else outputs_of(job.params)


def links_left(links: Sequence[Link]) -> list[dict[str, Any]]:
    """As a submit says them."""
    return [{"mode": link.job.mode, "params": _plain(link.job.params), "pick": link.pick} for link in links]


def _plain(params: Any) -> dict[str, Any]:
    values = dataclasses.asdict(params)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _placed(layer: Layer, job: Job) -> Layer:
    """The layer as the chain tells it."""
    x, y = job.chain.origin
    box = layer.box
    # An upscale makes a new document, whatever came before.
    moved = box if isinstance(job.params, Upscale) else Box(box.x + x, box.y + y, box.width, box.height)
    info = {**layer.info, "then": links_left(job.chain.then)} if job.chain.then else layer.info
    return replace(layer, index=layer.index + job.chain.index, box=moved, info=info)
