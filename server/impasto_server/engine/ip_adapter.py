"""IP-Adapters: a picture beside the prompt, read by keys and values of its own in each attention to the text.

Ye et al., "IP-Adapter: text compatible image prompt adapter for text-to-image diffusion models", 2023:
output = attention(q, K, V) + weight * attention(q, K', V'), with K', V' of what CLIP's vision tower says of a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from impasto_protocol.errors import ModelError
from torch import nn

from .adapters import NetworkCall, Step
from .attention import AttentionCall, install
from .checkpoint import Tensors
from .clip_vision import Seen
from .coverage import at_tokens
from .ip_layers import layer_weights
from .jobs import IPUnit
from .load import Components
from .modelfile import header_of, open_model
from .vision_shapes import AdapterSizes, adapter_of

__all__ = ["IPAdapter", "IPAdapterModel", "cross_layers", "image_tokens", "load_ip_adapter", "second_version"]

_HEAD = 64
"""Numbers a head of the resampler has."""


@dataclass(frozen=True, eq=False)
class IPAdapterModel:
    """A loaded IP-Adapter: its projection, and for each attention to the text the weights of its keys and values."""

    projection: Any
    weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    sizes: AdapterSizes
    path: Path
    deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Of FaceID kinds: layer of an attention -> the LoRA (down [rank, in], up [out, rank]) that was trained along."""

    @property
    def size_bytes(self) -> int:
        pairs = (*self.weights.values(), *self.deltas.values())
        tensors = [*self.projection.parameters(), *(t for pair in pairs for t in pair)]
        return sum(t.numel() * t.element_size() for t in tensors)


def load_ip_adapter(path: str | Path, components: Components) -> IPAdapterModel:
    """The IP-Adapter at `path` (base, plus, plus-face, full-face, FaceID kinds) for a checkpoint.

    Raises ModelError `model.unsupported` where it is of another kind or for another network, with `need` and `got`, and
    `model.corrupt`, `model.unknown`, `model.unsafe` as `load_checkpoint` does.
    """
    path = Path(path)
    sizes = adapter_of({name: tuple(entry.shape) for name, entry in header_of(path).tensors.items()})
    if sizes is None:
        raise ModelError(
            "model.unsupported",
            f"{path.name} is no IP-Adapter of the kinds base, plus, full-face and FaceID; choose another file.",
            data={"file": path.name},
        )
    width = int(components.unet.config.cross_attention_dim)
    layers = cross_layers(components.unet)
    with open_model(path) as tensors:
        names = set(tensors.keys())
        own = sum(1 for name in names if re.fullmatch(r"ip_adapter\.\d+\.to_k_ip\.weight", name))
        if sizes.text != width or own != len(layers):
            need, got = f"width {width} and {len(layers)} layers", f"width {sizes.text} and {own} layers"
            raise ModelError(
                "model.unsupported",
                f"The IP-Adapter {path.name} does not fit the checkpoint: needed is one for {need}, this one has "
                f"{got}. Choose one of the checkpoint's family.",
                data={"file": path.name, "need": need, "got": got},
            )
        reader = _Reader(path, tensors, names, components.device, components.dtype)
        projection = reader.module(_projection(sizes, tensors, names), sizes.kind == "faceid-plus")
        deltas = _deltas(reader, components.unet) if sizes.identity else {}
        weights = {}
        for index, layer in enumerate(layers):
            module = components.unet.get_submodule(layer)
            shape = (module.to_k.out_features, width)
            number = 2 * index + 1
            weights[layer] = (
                reader.tensor(f"ip_adapter.{number}.to_k_ip.weight", shape),
                reader.tensor(f"ip_adapter.{number}.to_v_ip.weight", shape),
            )
    return IPAdapterModel(projection, weights, sizes, path, deltas)


def _deltas(reader: _Reader, network: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The LoRA in the file, for all attentions as files count them: from 0 on, those to the text odd. Empty without."""
    found = {}
    for number, name in enumerate(network.attn_processors):
        attention = name.removesuffix(".processor")
        for projection, layer in (("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out", "to_out.0")):
            key = f"ip_adapter.{number}.{projection}_lora"
            if f"{key}.down.weight" not in reader.names:
                continue
            module = network.get_submodule(f"{attention}.{layer}")
            rank = reader.tensors.get_tensor(f"{key}.down.weight").shape[0]
            found[f"{attention}.{layer}"] = (
                reader.tensor(f"{key}.down.weight", (rank, module.in_features)),
                reader.tensor(f"{key}.up.weight", (module.out_features, rank)),
            )
    return found


def cross_layers(network: Any) -> list[str]:
    """The attentions to the text in the order in which files count them, odd numbers from 1 on: down, up, middle."""
    names = (name.removesuffix(".processor") for name in network.attn_processors)
    return [name for name in names if name.endswith("attn2")]


def _projection(sizes: AdapterSizes, tensors: Tensors, names: Set[str]) -> Any:
    """The module on the meta device."""
    from diffusers.models import embeddings as known

    with torch.device("meta"):
        if sizes.kind == "base":
            return known.ImageProjection(sizes.width, sizes.text, sizes.tokens)
        if sizes.kind == "full-face":
            return known.IPAdapterFullImageProjection(sizes.width, sizes.text)
        if sizes.kind == "faceid":
            middle = tensors.get_tensor("image_proj.proj.0.weight").shape[0]
            return known.IPAdapterFaceIDImageProjection(
                sizes.identity, sizes.text, middle / sizes.identity, sizes.tokens
            )
        if sizes.kind == "faceid-plus":
            start = "image_proj.perceiver_resampler."
            shapes = {name: tensors.get_tensor(name).shape for name in names if name.startswith("image_proj.")}
            own = shapes[f"{start}proj_in.weight"][0]
            layers = len({name.split(".")[3] for name in shapes if name.startswith(f"{start}layers.")})
            query = shapes.get(f"{start}layers.0.0.to_q.weight", (own,))
            ff = shapes.get(f"{start}layers.0.1.1.weight", (4 * own,))
            return known.IPAdapterFaceIDPlusImageProjection(
                embed_dims=own,
                output_dims=sizes.text,
                hidden_dims=sizes.width,
                id_embeddings_dim=sizes.identity,
                depth=max(layers, 1),
                dim_head=_HEAD,
                heads=max(query[0] // _HEAD, 1),
                num_tokens=sizes.tokens,
                ffn_ratio=ff[0] / own,
                ffproj_ratio=shapes["image_proj.proj.0.weight"][0] / sizes.identity,
            )
        hidden = tensors.get_tensor("image_proj.latents").shape[2]
        depth = len({name.split(".")[2] for name in names if name.startswith("image_proj.layers.")})
        first = [name for name in _names_of("layers.0.attn.to_q.weight") if name in names]
        inner = [name for name in _names_of("layers.0.ff.1.net.0.proj.weight") if name in names]
        heads = tensors.get_tensor(first[0]).shape[0] // _HEAD if first else 0
        ratio = tensors.get_tensor(inner[0]).shape[0] / hidden if inner else 0
        return known.IPAdapterPlusImageProjection(
            sizes.width, sizes.text, hidden, max(depth, 1), _HEAD, max(heads, 1), sizes.tokens, ratio or 4
        )


_ORIGINAL = (
    (r"image_embeds\.", "proj."),
    (r"(?:ff|proj)\.net\.0\.proj\.", "proj.0."),
    (r"(?:ff|proj)\.net\.2\.", "proj.2."),
    (r"(layers\.\d+)\.ln0\.", r"\1.0.norm1."),
    (r"(layers\.\d+)\.ln1\.", r"\1.0.norm2."),
    (r"(layers\.\d+)\.attn\.to_q\.", r"\1.0.to_q."),
    (r"(layers\.\d+)\.attn\.to_[kv]\.", r"\1.0.to_kv."),
    (r"(layers\.\d+)\.attn\.to_out\.0\.", r"\1.0.to_out."),
    (r"(layers\.\d+)\.ff\.0\.", r"\1.1.0."),
    (r"(layers\.\d+)\.ff\.1\.net\.0\.proj\.", r"\1.1.1."),
    (r"(layers\.\d+)\.ff\.1\.net\.2\.", r"\1.1.3."),
)
"""Names of diffusers' modules -> those of the original files."""


def _names_of(name: str, resampled: bool = False) -> tuple[str, ...]:
    """What the parameter may be called in a file: as in the original, and as in diffusers. With `resampled` in one that
    keeps its resampler apart from the projection of identities."""
    if resampled and not name.startswith(("proj.", "norm.")):
        return tuple(f"image_proj.perceiver_resampler.{one.partition('.')[2]}" for one in _names_of(name)[:1])
    for pattern, other in _ORIGINAL:
        if re.match(pattern, name):
            return f"image_proj.{re.sub(pattern, other, name, count=1)}", f"image_proj.{name}"
    return (f"image_proj.{name}",)


@dataclass(frozen=True)
class _Reader:
    path: Path
    tensors: Tensors
    names: Set[str]
    device: torch.device
    dtype: torch.dtype

    def tensor(self, name: str, shape: tuple[int, ...], part: int | None = None) -> torch.Tensor:
        """The tensor, or one half of it."""
        if name not in self.names:
            raise self._corrupt(f"{name} is missing")
        value = self.tensors.get_tensor(name)
        if part is not None:
            value = value.chunk(2)[part]
        if tuple(value.shape) != tuple(shape) or not value.is_floating_point():
            raise self._corrupt(f"{name} is {tuple(value.shape)} {value.dtype} where {tuple(shape)} numbers belong")
        return value.to(self.device, self.dtype)

    def module(self, module: Any, resampled: bool = False) -> Any:
        """The projection with its weights, ready to run."""
        state = {}
        for name, wanted in module.state_dict().items():
            if name == "norm.weight" or name == "norm.bias":
                # The full-face one's norm is the last of its sequence in the original.
                choices: tuple[str, ...] = (f"image_proj.{name}", f"image_proj.proj.3.{name.rpartition('.')[2]}")
            else:
                choices = _names_of(name, resampled)
            found = next((choice for choice in choices if choice in self.names), choices[0])
            halves = found.endswith(".to_kv.weight")
            state[name] = self.tensor(found, tuple(wanted.shape), int(".to_v." in name) if halves else None)
        module.load_state_dict(state, strict=True, assign=True)
        return module.eval().requires_grad_(False)

    def _corrupt(self, reason: str) -> ModelError:
        return ModelError(
            "model.corrupt",
            f"{self.path.name} is not a complete IP-Adapter: {reason}. Download it again.",
            data={"file": self.path.name},
        )


def image_tokens(
    model: IPAdapterModel, pictures: list[Seen], nothing: Seen, combine: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is read beside the text, [1, tokens, width]: of the pictures, and of none for the negative side.

    `combine` "concat" offers the tokens of all pictures, "average" those of their mean. A base one sees nothing as
    zeros, the others as what the tower says of an empty picture; FaceID kinds, for which `identity` is in the place of
    `embedding`, see nobody as zeros.
    """

    def seen_of(looks: list[Seen]) -> Seen:
        found = Seen(torch.cat([one.embedding for one in looks]), torch.cat([one.hidden for one in looks]))
        if combine == "average":
            return Seen(found.embedding.mean(0, keepdim=True), found.hidden.mean(0, keepdim=True))
        return found

    seen = seen_of(pictures)
    nobody = model.sizes.kind in ("base", "faceid", "faceid-plus")
    empty = Seen(torch.zeros_like(seen.embedding[:1]) if nobody else nothing.embedding, nothing.hidden)
    tokens = _projected(model, seen)
    away = _projected(model, empty).expand(tokens.shape[0], -1, -1)
    return tokens.reshape(1, -1, tokens.shape[-1]), away.reshape(1, -1, tokens.shape[-1])


def _projected(model: IPAdapterModel, seen: Seen) -> torch.Tensor:
    """The tokens [pictures, tokens, width] of what is seen."""
    kind, projection = model.sizes.kind, model.projection
    weight = next(projection.parameters())
    if kind == "faceid-plus":
        # diffusers' module takes the tower's word, and which version it is, as attributes.
        projection.clip_embeds = seen.hidden.to(weight)[:, None]
        projection.shortcut = second_version(model.path)
    values = seen.embedding if kind in ("base", "faceid", "faceid-plus") else seen.hidden
    projected: torch.Tensor = projection(values.to(weight))
    if kind == "faceid-plus":
        projection.clip_embeds = None
    return projected


def second_version(path: Path) -> bool:
    """Whether a FaceID plus is of the second version, which adds the resampled tokens to those of the identity: nothing
    but the name of the file tells."""
    return re.search(r"plus[-_]?v2", path.name.lower()) is not None


class IPAdapter:
    """One unit at work. `tokens`, `away` [1, tokens, width] as `image_tokens` gives them; `mask` [1, 1, h, w] at latent
    size, 0..1, where it counts (None: everywhere)."""

    def __init__(
        self,
        model: IPAdapterModel,
        unit: IPUnit,
        tokens: torch.Tensor,
        away: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> None:
        self.model, self.unit, self.mask = model, unit, mask
        self._tokens = (tokens, away)
        self._factors: dict[str, float] = {}
        self._held: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        """Keys and values by layer, of both sides: the same in each step."""
        self._masks: dict[int, torch.Tensor] = {}

    @contextmanager
    def attach(self, network: nn.Module) -> Iterator[None]:
        self._factors = _factors(network, self.unit.layers)
        try:
            with _changed(network, self.model.deltas, self.unit.weight), install(network).contributing(self):
                yield
        finally:
            self._held.clear()
            self._masks.clear()

    def prepare(self, call: NetworkCall, step: Step) -> None:
        """Nothing is added to the call itself."""

    def extra_pass(self, call: NetworkCall, step: Step) -> NetworkCall | None:
        return None

    def before(self, call: AttentionCall) -> None:
        """The text is read as ever."""

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        unit, step = self.unit, call.step
        weight = unit.weight * self._factors.get(call.layer, 0.0)
        if not call.cross or weight == 0 or step is None or not unit.start <= step.fraction <= unit.end:
            return output
        key, value = self._of_layer(call)
        sides = torch.tensor([int(label.kind == "uncond") for label in call.rows], device=key.device)
        read = functional.scaled_dot_product_attention(call.query, key[sides], value[sides])
        if self.mask is not None:
            read = read * self._mask_of(call.query)
        return output + weight * read

    def _of_layer(self, call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor]:
        if call.layer not in self._held:
            key, value = self.model.weights[call.layer]
            both = torch.cat(self._tokens).to(key)
            self._held[call.layer] = (
                call.split_heads(functional.linear(both, key)).to(call.query),
                call.split_heads(functional.linear(both, value)).to(call.query),
            )
        return self._held[call.layer]

    def _mask_of(self, query: torch.Tensor) -> torch.Tensor:
        assert self.mask is not None
        tokens = query.shape[2]
        if tokens not in self._masks:
            self._masks[tokens] = at_tokens(self.mask, tokens).to(query)
        return self._masks[tokens]


@contextmanager
def _changed(
    network: nn.Module, deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]], weight: float
) -> Iterator[None]:
    """The network with the adapter's LoRA on it, `weight` times; its parameters come back as they were."""
    kept: list[tuple[nn.Module, nn.Parameter]] = []
    try:
        for layer, (down, up) in deltas.items():
            module = network.get_submodule(layer)
            own = module.get_parameter("weight")
            kept.append((module, own))
            delta = up.to(own.device, torch.float32) @ down.to(own.device, torch.float32)
            changed = (own.float() + weight * delta).to(own.dtype)
            module.register_parameter("weight", nn.Parameter(changed, requires_grad=False))
        yield
    finally:
        for module, own in reversed(kept):
            module.register_parameter("weight", own)


def _factors(network: Any, preset: str) -> dict[str, float]:
    """Layer -> the factor that the preset has for its attention block."""
    parts = {"down_blocks": (0, "input"), "mid_block": (1, "middle"), "up_blocks": (2, "output")}
    layers = cross_layers(network)
    blocks = list(dict.fromkeys(name.partition(".transformer_blocks.")[0] for name in layers))
    blocks.sort(key=lambda name: parts[name.partition(".")[0]][0])  # stable: within a side they are in order
    weights = layer_weights(preset, [parts[name.partition(".")[0]][1] for name in blocks])
    by_block = dict(zip(blocks, weights, strict=True))
    return {name: by_block[name.partition(".transformer_blocks.")[0]] for name in layers}
