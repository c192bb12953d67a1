"""What a saved picture says about itself: AUTOMATIC1111's `parameters` text, the recipe, and that it is generated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .exif_comment import exif_block

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

__all__ = ["png_info", "save_options", "xmp_packet"]

_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def png_info(recipe: Mapping[str, Any], *, composite: bool = False) -> PngInfo:
    """The chunks of a result's PNG; `composite` where generated pixels lie over others."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key in ("parameters", "postprocessing"):
        if recipe.get(key):
            info.add_text(key, str(recipe[key]))
    info.add_text("impasto", json.dumps(dict(recipe), default=str))
    xmp = _xmp_of(recipe, composite)
    if xmp:
        info.add_itxt("XML:com.adobe.xmp", xmp)
    return info


def save_options(suffix: str, recipe: Mapping[str, Any], *, composite: bool = False) -> dict[str, Any]:
    """What Pillow's `save` is to be told, so that a file of this kind says how it was made; nothing where it cannot.

    JPEG, WebP and AVIF take A1111's text as EXIF's UserComment, and the digital source type as XMP.
    """
    suffix = suffix.lower()
    if suffix == ".png":
        return {"pnginfo": png_info(recipe, composite=composite)}
    text = str(recipe.get("parameters") or recipe.get("postprocessing") or "")
    if suffix == ".gif":
        return {"comment": text.encode()} if text else {}
    if suffix not in (".jpg", ".jpeg", ".webp", ".avif"):
        return {}
    options: dict[str, Any] = {}
    # The length of a JPEG's segment is a number of two bytes.
    if text and (suffix not in (".jpg", ".jpeg") or len(text.encode("utf-16-be")) < _SEGMENT):
        options["exif"] = b"Exif\0\0" + exif_block(text)
    xmp = _xmp_of(recipe, composite)
    if xmp:
        options["xmp"] = xmp.encode()
    return options


_SEGMENT = 65_000


def _xmp_of(recipe: Mapping[str, Any], composite: bool) -> str:
    if recipe.get("mode") != "upscale":
        return xmp_packet(composite=composite)
    # Resampling alone generates nothing.
    return xmp_packet("algorithmicallyEnhanced") if recipe.get("upscaler") else ""


def xmp_packet(kind: str = "trainedAlgorithmicMedia", *, composite: bool = False) -> str:
    """An XMP packet with the IPTC digital source type `kind`, or that of a picture composed with what was generated."""
    if composite:
        kind = "compositeWithTrainedAlgorithmicMedia"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{_SOURCE}{kind}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )
