"""What a saved picture says about itself: AUTOMATIC1111's `parameters` text, and the note that it is generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["parameters_text", "xmp_packet"]

_LABELS = (
    ("steps", "Steps"),
    ("sampler", "Sampler"),
    ("schedule", "Schedule type"),
    ("cfg", "CFG scale"),
    ("seed", "Seed"),
    ("size", "Size"),
    ("model", "Model"),
    ("strength", "Denoising strength"),
)

_SAMPLERS = {"euler": "Euler", "euler_a": "Euler a", "dpmpp_2m": "DPM++ 2M"}
_SCHEDULES = {"automatic": "Automatic", "karras": "Karras"}

_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def parameters_text(recipe: Mapping[str, Any]) -> str:
    """The recipe as AUTOMATIC1111 writes it: prompt, negative prompt, then one line of `Name: value` pairs."""
    found = recipe.get("params")
    params: Mapping[str, Any] = {**recipe, **found} if isinstance(found, Mapping) else recipe
    lines = [str(params.get("prompt", ""))]
    if params.get("negative_prompt"):
        lines.append(f"Negative prompt: {params['negative_prompt']}")
    pairs = []
    for key, label in _LABELS:
        value = params.get(key)
        if value is None or value == "":
            continue
        if key == "sampler":
            value = _SAMPLERS.get(str(value), value)
        elif key == "schedule":
            value = _SCHEDULES.get(str(value), value)
        elif key == "size" and isinstance(value, (list, tuple)):
            value = "x".join(str(v) for v in value)
        elif isinstance(value, float):
            value = f"{value:g}"
        text = str(value)
        pairs.append(f'{label}: "{text}"' if "," in text else f"{label}: {text}")
    lines.append(", ".join([*pairs, "Version: Impasto"]))
    return "\n".join(lines)


def xmp_packet(mode: str) -> str:
    """An XMP packet with the IPTC digital source type: generated, or composed with what was generated."""
    kind = "trainedAlgorithmicMedia" if mode == "txt2img" else "compositeWithTrainedAlgorithmicMedia"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{_SOURCE}{kind}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )
