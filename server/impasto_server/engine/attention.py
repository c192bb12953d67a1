"""The one attention processor: diffusers' computation with a list of contributions around it.

diffusers holds one processor a layer, where IP-Adapter, reference and regions would evict each other. Ours is
installed once in every layer; features add contributions for a run. Without any it computes exactly what
diffusers' AttnProcessor2_0 does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as functional

from .adapters import RowLabel, Step

__all__ = ["AttentionCall", "AttentionControl", "Contribution", "install"]


@dataclass
class AttentionCall:
    """One attention of one layer, before it is computed.

    layer           the layer's name in the network ("down_blocks.0.attentions.0.transformer_blocks.0.attn1")
    cross           whether keys and values come from the text
    hidden          the layer's normalised input [rows, n, width]; stored banks keep this
    query           [rows, heads, n, depth]
    key, value      [rows, heads, m, depth]
    mask            None, or what is added to the scores, to be broadcast to [rows, heads, n, m]
    rows, step      labels of the rows, and where the run is (None outside a run)
    module          the layer itself, for its projections
    """

    layer: str
    cross: bool
    hidden: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    rows: tuple[RowLabel, ...]
    step: Step | None
    module: torch.nn.Module

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """[rows, m, heads * depth] -> [rows, heads, m, depth]."""
        rows, _, heads_depth = states.shape
        heads = self.query.shape[1]
        return states.view(rows, -1, heads, heads_depth // heads).transpose(1, 2)

    def append(self, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """More keys and values [rows, heads, m, depth]; `mask` is added to their scores [.., .., n or 1, m]."""
        if mask is not None or self.mask is not None:
            old = self._mask_of(self.key.shape[2], self.mask)
            self.mask = torch.cat([old, self._mask_of(key.shape[2], mask)], -1)
        self.key = torch.cat([self.key, key], 2)
        self.value = torch.cat([self.value, value], 2)

    def add_mask(self, mask: torch.Tensor) -> None:
        """Add to the scores of all keys there are: [.., .., n or 1, m]."""
        self.mask = mask if self.mask is None else self.mask + mask

    def _mask_of(self, keys: int, mask: torch.Tensor | None) -> torch.Tensor:
        rows, _, queries, _ = self.query.shape
        if mask is None:
            mask = self.query.new_zeros(())
        return mask.expand(rows, 1, queries, keys)


class Contribution(Protocol):
    """Something that takes part in attention. Contributions run in the order in which they were added."""

    def before(self, call: AttentionCall) -> None:
        """Add keys, values or masks, or store what the call holds."""
        ...

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """The output [rows, heads, n, depth], changed (decoupled attention) or as it is."""
        ...


@dataclass
class AttentionControl:
    """What the processors of one network share: the contributions, and what the running call is."""

    contributions: list[Contribution] = field(default_factory=list)
    rows: tuple[RowLabel, ...] = ()
    step: Step | None = None

    @contextmanager
    def contributing(self, contribution: Contribution) -> Iterator[None]:
        """Take part until the context is left."""
        self.contributions.append(contribution)
        try:
            yield
        finally:
            # By identity: two equal contributions are two.
            index = next(i for i, c in enumerate(self.contributions) if c is contribution)
            del self.contributions[index]


class AttentionProcessor:
    """The processor of one layer, in the form that diffusers calls."""

    def __init__(self, layer: str, control: AttentionControl) -> None:
        self.layer, self.control = layer, control

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        residual = hidden_states
        shape = hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            source = attn.norm_encoder_hidden_states(source)
        batch, tokens, _ = source.shape
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, tokens, batch)
            attention_mask = attention_mask.view(batch, attn.heads, -1, attention_mask.shape[-1])

        def heads_of(states: torch.Tensor) -> torch.Tensor:
            return states.view(batch, -1, attn.heads, states.shape[-1] // attn.heads).transpose(1, 2)

        query, key = heads_of(attn.to_q(hidden_states)), heads_of(attn.to_k(source))
        value = heads_of(attn.to_v(source))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)

        if self.control.contributions:
            output = self._contributed(
                attn, hidden_states, query, key, value, attention_mask, encoder_hidden_states is not None
            )
        else:
            output = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)

        output = output.transpose(1, 2).reshape(batch, -1, attn.heads * output.shape[-1]).to(query.dtype)
        output = attn.to_out[1](attn.to_out[0](output))
        if len(shape) == 4:
            output = output.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            output = output + residual
        # A division by 1 changes nothing and goes through all of the memory once more.
        scaled: torch.Tensor = output if attn.rescale_output_factor == 1 else output / attn.rescale_output_factor
        return scaled

    def _contributed(
        self,
        attn: Any,
        hidden: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        cross: bool,
    ) -> torch.Tensor:
        control = self.control
        call = AttentionCall(self.layer, cross, hidden, query, key, value, mask, control.rows, control.step, attn)
        for contribution in control.contributions:
            contribution.before(call)
        output = functional.scaled_dot_product_attention(call.query, call.key, call.value, attn_mask=call.mask)
        for contribution in control.contributions:
            output = contribution.after(call, output)
        return output


def install(network: Any) -> AttentionControl:
    """Put our processor into every attention layer, once; the control they share."""
    # The first one tells; to list them all takes milliseconds.
    for module in network.modules():
        processor = getattr(module, "processor", None)
        if isinstance(processor, AttentionProcessor):
            return processor.control
    control = AttentionControl()
    network.set_attn_processor(
        {name: AttentionProcessor(name.removesuffix(".processor"), control) for name in network.attn_processors}
    )
    return control
