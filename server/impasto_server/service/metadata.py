"""What a saved picture says about itself: AUTOMATIC1111's `parameters` text, the recipe, and that it is generated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

__all__ = ["png_info", "xmp_packet"]

_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def png_info(recipe: Mapping[str, Any], *, composite: bool = False) -> PngInfo:
    """The chunks of a result's PNG; `composite` where generated pixels lie over others."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key in ("parameters", "postprocessing"):
        if recipe.get(key):
            info.add_text(key, str(recipe[key]))
    info.add_text("impasto", json.dumps(dict(recipe), default=str))
    if recipe.get("mode") != "upscale":
        info.add_itxt("XML:com.adobe.xmp", xmp_packet(composite=composite))
    elif recipe.get("upscaler"):  # resampling alone generates nothing
        info.add_itxt("XML:com.adobe.xmp", xmp_packet("algorithmicallyEnhanced"))
    return info


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
