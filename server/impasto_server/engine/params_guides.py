"""The parameters of what guides beside the prompt: IP-Adapters, and prompts of their own for regions. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from impasto_protocol.schema import Param

from .fields import Maps, param
from .ip_layers import IP_LAYERS
from .params_control import ENABLED, MASK, REFERENCES

__all__ = ["IP_ADAPTERS", "IP_PICTURES", "REGIONS", "Guided"]

_UNIT = {item.name: item for item in REFERENCES}

IP_PICTURES = ("image", "image_2", "image_3", "image_4")
"""The fields of an IP-Adapter that name pictures of it."""


def _more(number: int) -> Param:
    return Param(
        f"image_{number}",
        "string",
        "",
        f"Picture {number}",
        "One more picture of the same thing or manner.",
        maximum=40,
        ui={"widget": "picture", "none": "None", "advanced": True},
    )


IP_ADAPTERS = (
    Param(
        "model",
        "string",
        "",
        "IP-Adapter",
        "An IP-Adapter of the catalogue; its image encoder (CLIP vision) must lie in a models folder, too.",
        maximum=500,
        ui={"widget": "model"},
        choices={"from": "models", "kind": "ip-adapter"},
    ),
    ENABLED,
    _UNIT["image"],
    *(_more(number) for number in range(2, len(IP_PICTURES) + 1)),
    Param(
        "combine",
        "string",
        "average",
        "Several pictures",
        "average: what they have in common; concat: something of each.",
        enum=("average", "concat"),
        ui={"widget": "choice", "advanced": True},
    ),
    Param(
        "layers",
        "string",
        "all",
        "What is taken",
        "all; style or composition alone, or both; or where in the network it is strong.",
        enum=IP_LAYERS,
        ui={"widget": "choice"},
    ),
    Param(
        "weight",
        "number",
        1.0,
        "Weight",
        "How strongly the picture counts beside the prompt.",
        minimum=0.0,
        maximum=2.0,
        step=0.05,
        ui={"widget": "slider"},
    ),
    _UNIT["start"],
    _UNIT["end"],
    MASK,
    _UNIT["resize"],
)
"""One entry of `ip_adapters`."""

REGIONS = (
    Param(
        "prompt",
        "string",
        "",
        "Prompt",
        "What to paint there; it follows the prompt of the whole picture, which holds everywhere.",
        maximum=10_000,
        ui={"widget": "prompt"},
    ),
    ENABLED,
    Param(
        "mask",
        "string",
        "",
        "Where",
        "The input of the job that says where (control_1, ...): where its picture is painted, or bright where it is "
        "opaque.",
        maximum=40,
        ui={"widget": "picture", "none": "Choose a layer or group"},
    ),
    Param(
        "weight",
        "number",
        1.0,
        "Weight",
        "How much it counts there against the prompt of the whole picture.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        ui={"widget": "slider"},
    ),
    Param(
        "negative",
        "string",
        "",
        "Negative prompt",
        "What to avoid there, beside what is to be avoided everywhere.",
        maximum=10_000,
        ui={"widget": "prompt", "advanced": True},
    ),
)
"""One entry of `regions`."""


@dataclass(frozen=True, kw_only=True)
class Guided:
    """What guides the picture beside its prompt."""

    ip_adapters: Maps = param(
        (),
        "Picture prompts",
        "Pictures that say beside the prompt what to paint, each through an IP-Adapter.",
        maximum=4,
        ui={"group": "control", "advanced": True, "entry": "Picture prompt"},
        items=IP_ADAPTERS,
    )
    regions: Maps = param(
        (),
        "Regions",
        "Prompts of their own for parts of the picture, each where a layer or a group says.",
        maximum=8,
        ui={"group": "control", "advanced": True},
        items=REGIONS,
    )
