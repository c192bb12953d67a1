"""The seam for everything that adds to a network call: ControlNet, T2I-Adapter, IP-Adapter, reference, regions,
the extra channels of inpainting checkpoints.

An adapter is attached for one run and prepares every call of the network. What works on the prediction instead
(inpaint blending, tiles) wraps `denoise` and is not an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

__all__ = ["Adapter", "NetworkCall", "RowLabel", "Step"]


@dataclass(frozen=True)
class RowLabel:
    """What a row of the batch is: its side of the guidance, the index of its entry on that side, and of its picture.

    A `blind` row of the negative side is not shown the picture that is changed (instruct-pix2pix).
    """

    kind: Literal["cond", "uncond"]
    region: int
    image: int
    blind: bool = False


@dataclass(frozen=True)
class Step:
    """Where the run is: `index` of `steps`, the noise level (0-d tensor) and its timestep."""

    index: int
    steps: int
    sigma: torch.Tensor
    timestep: torch.Tensor

    @property
    def fraction(self) -> float:
        """The part of the steps that is done, 0 <= fraction < 1."""
        return self.index / self.steps


@dataclass
class NetworkCall:
    """The arguments of one call of the network; adapters change them in `prepare`.

    sample                  [rows, channels, h, w], already scaled by 1 / sqrt(sigma² + 1)
    timestep                0-d
    encoder_hidden_states   [rows, tokens, width]
    rows                    a label for each row
    added                   what the family gives beside the tokens, each [rows, ...]
    concat                  further input channels [rows, c, h, w], appended to the sample (inpainting checkpoints)
    down_residuals, mid_residual    added to the skip connections (ControlNet)
    down_intrablock         added inside the down blocks (T2I-Adapter)
    """

    sample: torch.Tensor
    timestep: torch.Tensor
    encoder_hidden_states: torch.Tensor
    rows: tuple[RowLabel, ...]
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)
    concat: torch.Tensor | None = None
    down_residuals: tuple[torch.Tensor, ...] | None = None
    mid_residual: torch.Tensor | None = None
    down_intrablock: tuple[torch.Tensor, ...] | None = None

    def add_residuals(self, down: Sequence[torch.Tensor], mid: torch.Tensor) -> None:
        """Add a ControlNet's residuals to those of the adapters before."""
        if self.down_residuals is None or self.mid_residual is None:
            self.down_residuals, self.mid_residual = tuple(down), mid
        else:
            self.down_residuals = tuple(a + b for a, b in zip(self.down_residuals, down, strict=True))
            self.mid_residual = self.mid_residual + mid

    def add_channels(self, channels: torch.Tensor) -> None:
        """Append input channels."""
        self.concat = channels if self.concat is None else torch.cat([self.concat, channels], 1)


class Adapter(Protocol):
    """One feature that adds to the network's calls."""

    def attach(self, network: torch.nn.Module) -> AbstractContextManager[None]:
        """Patch the network for the run; leaving the context undoes it to the last bit."""
        ...

    def prepare(self, call: NetworkCall, step: Step) -> None:
        """Add to a call that is about to be made."""
        ...

    def extra_pass(self, call: NetworkCall, step: Step) -> NetworkCall | None:
        """A call to make before this one, for its effect on the adapter (filling banks); its output is dropped."""
        ...
