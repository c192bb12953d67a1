"""What inpainting can be for, as sets of values of its parameters: the one table of clients, panels and CLI. No torch.

Nothing here changes what a parameter means: an intent is a beginning, and what its user sets goes before it.
"""

from __future__ import annotations

from collections.abc import Mapping

from impasto_protocol.schema import Intent

__all__ = ["INTENTS"]

INTENTS: Mapping[str, tuple[Intent, ...]] = {
    "inpaint": (
        Intent(
            "fill",
            "Fill",
            "Repaint what is selected so that it fits its surroundings; the strength says how much of it stays.",
        ),
        Intent(
            "expand",
            "Expand",
            "Paint on beyond the picture's old border: select the empty part of an enlarged canvas.",
            # What is there is empty: begin from the surroundings, and reach well into them, so that no seam is seen.
            {"strength": 1.0, "masked_content": "fill", "grow": 16},
            spanning=True,
        ),
        Intent(
            "add",
            "Add content",
            "Put what the prompt says into the selection, whatever is there now.",
            # A start without forms or colours of its own: the prompt decides, not the smeared surroundings.
            {"strength": 1.0, "masked_content": "latent_nothing"},
        ),
        Intent(
            "remove",
            "Remove content",
            "Let the surroundings grow over what is selected; describe what shall be seen there instead.",
            # The smeared surroundings are kept in the large, else something new would be invented; a rim is taken
            # along, where the shadow or the outline of what goes away would stay.
            {"strength": 0.9, "masked_content": "fill", "grow": 12},
        ),
        Intent(
            "background",
            "Replace background",
            "Select what shall stay; everything around it is painted anew.",
            {"strength": 1.0, "masked_content": "latent_noise", "invert": True, "grow": 0},
        ),
        Intent("custom", "Custom", "As the mask settings say."),
    ),
}
"""Mode -> its intents, the plain one first."""
