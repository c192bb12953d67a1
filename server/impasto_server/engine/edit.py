"""Checkpoints that change a picture by an instruction: it is shown to the network beside the noise.

Brooks, Holynski, Efros, "InstructPix2Pix: learning to follow image editing instructions", 2023.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from impasto_protocol.geometry import Box

from .adapters import NetworkCall, Step
from .jobs import Pixels
from .modes import Sketch
from .pictures import flattened, resize

if TYPE_CHECKING:
    from .work import Work

__all__ = ["PictureChannels", "shown_picture"]


class PictureChannels:
    """The further inputs of such a checkpoint as an adapter: latents [1, channels, h, w] of the picture, not scaled.
    Blind rows see zeros."""

    def __init__(self, latent: torch.Tensor) -> None:
        self.latent = latent

    def part(self, box: Box) -> PictureChannels:
        """Those of a latent tile."""
        return PictureChannels(self.latent[..., box.y : box.bottom, box.x : box.right])

    def attach(self, network: torch.nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(self, call: NetworkCall, step: Step) -> None:
        seen = [0.0 if label.blind else 1.0 for label in call.rows]
        latent = self.latent.to(call.sample)
        call.add_channels(latent * latent.new_tensor(seen)[:, None, None, None])

    def extra_pass(self, call: NetworkCall, step: Step) -> NetworkCall | None:
        return None


def shown_picture(work: Work) -> Pixels:
    """RGB of the size of a pass: what the job's picture shows, of which a tile sees its part."""
    job, working, box = work.job, work.plan.working, work.window
    assert job.image is not None, "the service asks for a picture"
    over = isinstance(job.params, Sketch) and job.params.background == "document" and job.backdrop is not None
    picture = flattened(job.image, flattened(job.backdrop) if over and job.backdrop is not None else None)
    if box is None or work.whole is None or picture.shape[:2] == (working.height, working.width):
        return resize(picture, working)
    whole = resize(picture, work.whole)
    return np.ascontiguousarray(whole[box.y : box.bottom, box.x : box.right])
