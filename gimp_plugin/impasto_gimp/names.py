"""The procedures by their names in GIMP's procedure database, and what they are called in menus and on buttons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

__all__ = ["ACTIONS", "AGAIN", "CONNECT", "PANEL", "PANEL_ASK", "RECONNECT", "SHORTCUTS", "Action"]


@dataclass(frozen=True)
class Action:
    """A mode of the server as the menu and the panel offer it."""

    mode: str
    procedure: str
    label: str
    title: str
    button: str
    tip: str
    help: str


ACTIONS: Tuple[Action, ...] = (
    Action(
        "inpaint",
        "plug-in-impasto-inpaint",
        "_Inpaint Selection...",
        "Inpaint",
        "Inpaint selection",
        "Repaint the selected region as a new layer.",
        "Sends what is seen around the selection to the Impasto server and adds what it paints as a new layer on top, "
        "with a soft edge. The existing layers are not changed.",
    ),
    Action(
        "sketch",
        "plug-in-impasto-sketch",
        "_Sketch Layer to Image...",
        "Sketch",
        "Sketch layer to image",
        "Make a picture from the active layer, as a new layer above it.",
        "Sends the given layer to the Impasto server and adds the picture that it makes of it as a new layer above. "
        "With a selection, the rectangle around it is made. The existing layers are not changed.",
    ),
    Action(
        "txt2img",
        "plug-in-impasto-generate",
        "_Generate Picture...",
        "Generate",
        "Generate picture",
        "Paint a new picture over the whole image, as a new layer.",
        "Has the Impasto server paint a new picture from the prompt and adds it as a new layer on top, over the whole "
        "image. The existing layers are not changed.",
    ),
    Action(
        "img2img",
        "plug-in-impasto-img2img",
        "Re_paint Image...",
        "Repaint",
        "Repaint image",
        "Repaint what the image shows by the strength, as a new layer.",
        "Sends what is seen of the image to the Impasto server, which repaints it by the strength, and adds the "
        "picture as a new layer on top. The existing layers are not changed.",
    ),
    Action(
        "refine",
        "plug-in-impasto-refine",
        "_Refine Image in Tiles...",
        "Refine",
        "Refine image in tiles",
        "Repaint the whole image a little at its full size, as a new layer.",
        "Sends what is seen of the image to the Impasto server, which repaints it by the strength in tiles, "
        "and adds the picture as a new layer on top. The existing layers are not changed.",
    ),
    Action(
        "faceswap",
        "plug-in-impasto-faceswap",
        "Swap _Faces...",
        "Faces",
        "Swap faces",
        "Exchange faces that the image shows, as a new layer.",
        "Sends what is seen of the image to the Impasto server, which puts the face of a profile in the place of those "
        "that are there, and adds them as a new layer on top. The existing layers are not changed.",
    ),
    Action(
        "upscale",
        "plug-in-impasto-upscale",
        "_Upscale Image...",
        "Upscale",
        "Upscale image",
        "Open a larger picture as a new image, or resize this one with it.",
        "Sends what is seen of the image, a layer or the selection to the Impasto server and opens the larger picture "
        "as a new image; or scales the image or a copy of it with all its layers, and adds the picture on top.",
    ),
)
AGAIN = "plug-in-impasto-again"
PANEL = "plug-in-impasto-panel"
PANEL_ASK = "plug-in-impasto-panel-ask"
"""Lives in the panel's process while the panel is open: the menu hands the image in front over by it."""
CONNECT = "plug-in-impasto-connect"
RECONNECT = "reconnect"
"""What the panel is asked for when another server was chosen, in the place of a mode."""
SHORTCUTS = {
    "plug-in-impasto-inpaint": "<Primary><Alt>Return",
    "plug-in-impasto-sketch": "<Primary><Shift><Alt>Return",
    "plug-in-impasto-upscale": "<Primary><Alt>u",
    "plug-in-impasto-panel": "<Primary><Alt>i",
}
"""Written into GIMP's shortcutsrc by `impasto plugin install gimp`: a plug-in cannot name them itself."""
