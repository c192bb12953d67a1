"""A job as an ordered list of stages. Each hands on one value: the pictures, where they belong, what their alpha is.

    generate -> hires

A stage reports its progress and hears a cancel through `Work`, and may deliver its pictures as layers of their own;
the last one always does. What comes after them (faces, refining) is one more entry of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from impasto_protocol.geometry import Box

from .jobs import Layer, Pixels
from .work import Work

__all__ = ["Finish", "Passed", "Stage", "layers_of", "run_stages"]

Finish = Callable[[int, Pixels], tuple[Pixels, Box]]
"""(index of the picture, RGB of the box's size) -> RGBA, and where it belongs in the document."""


@dataclass(frozen=True)
class Passed:
    """What a stage hands on.

    `latents` [pictures, channels, h, w] are of the checkpoint of `work`, the pass that made them; its plan's box is
    where they belong. A stage that works on pixels hands on `pictures` instead, RGB of the box's size, and no latents.
    `finish` makes a layer of a decoded picture, `alpha` says what kind ("opaque", "soft").
    """

    work: Work
    latents: torch.Tensor
    alpha: str
    finish: Finish
    pictures: tuple[Pixels, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One entry of the list: its name, as layers and clients say it, and what it does to what came before it (None
    before the first). With `delivers` its pictures are layers even if another stage follows."""

    name: str
    run: Callable[[Work, Passed | None], Passed]
    delivers: bool = False


def run_stages(work: Work, stages: Sequence[Stage]) -> tuple[Passed, tuple[Layer, ...]]:
    """Run them in order; gives what the last one handed on, and the layers of all that deliver."""
    passed: Passed | None = None
    layers: list[Layer] = []
    for stage in stages:
        passed = stage.run(work, passed)
        # From here on the pass that the pictures are at is the one to go on from.
        work = passed.work
        if stage.delivers or stage is stages[-1]:
            layers += layers_of(passed, stage.name, first=len(layers))
    assert passed is not None, "a job has a stage at least"
    return passed, tuple(layers)


def layers_of(passed: Passed, name: str, first: int = 0) -> tuple[Layer, ...]:
    """A layer for each picture: decoded, finished, and with its recipe; counted from `first`."""
    work, count = passed.work, len(passed.pictures or passed.latents)
    done = []
    with work.report.stage("decode", count):
        # One by one: a VAE takes more memory than the network.
        for index in range(count):
            made = passed.pictures[index] if passed.pictures else work.decode(passed.latents[index : index + 1])
            pixels, box = passed.finish(index, made)
            done.append(work.layer(first + index, index, name, pixels, box, passed.alpha))
            if count > 1:
                work.report.progress("decode", index + 1, count)
    return tuple(done)
