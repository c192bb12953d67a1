"""One way to act in both editors and to look at what came of it. The plug-ins' own panels do the work.

What it means in each of them: `krita_driver.py`, `gimp_driver.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["HEIGHT", "WIDTH", "Editor"]

WIDTH, HEIGHT = 200, 150


class Editor(ABC):
    """A painter at an editor. A document is `new`, has one layer "painting" and perhaps a sketch over it."""

    name: str
    home: Path
    """The server's folder."""

    def received(self) -> dict[str, np.ndarray]:
        """What the stub's engine was sent last."""
        with np.load(self.home / "received.npz") as file:
            return dict(file)

    @abstractmethod
    def new(self, kind: str = "u8") -> None:
        """A new document: u8, u16, float or grey."""

    @abstractmethod
    def select(self, mask: np.ndarray) -> None:
        """Select by a mask of the document's size, one byte a pixel."""

    @abstractmethod
    def sketch(self, x: int, y: int, width: int, height: int) -> None:
        """A new active layer "sketch" with a block of colour, and a layer "varnish" above it."""

    @abstractmethod
    def start(self, mode: str, prompt: str = "") -> None:
        """Press the panel's button for a mode."""

    @abstractmethod
    def hint(self, mode: str) -> str:
        """Why a mode cannot be started; empty where it can."""

    @abstractmethod
    def finish(self) -> str:
        """Wait until no job is running; the panel's message."""

    @abstractmethod
    def at_step(self, step: int) -> None:
        """Wait until the job has come to this step."""

    @abstractmethod
    def cancel(self) -> None:
        """Press the panel's cancel."""

    @abstractmethod
    def add_lora(self, model: str, strength: float) -> None:
        """Press "Add LoRA", choose it, and set its strength."""

    @abstractmethod
    def remove_lora(self) -> None:
        """Press the button that removes the first one."""

    @abstractmethod
    def queue(self) -> list[str]:
        """The lines of the list of jobs."""

    @abstractmethod
    def cancel_all(self) -> None:
        """Press "Cancel all"."""

    @abstractmethod
    def strip(self, search: str = "") -> list[str]:
        """What the strip lists for this document, once it has been searched for these words."""

    @abstractmethod
    def look_at(self, *names: str) -> None:
        """Choose results of the strip."""

    @abstractmethod
    def press(self, name: str) -> None:
        """Press one of the buttons of results: add, again, use, star."""

    @abstractmethod
    def activate(self, layer: str) -> None:
        """Make a layer the active one."""

    @abstractmethod
    def group(self, name: str) -> list[str]:
        """The layers in a group, from top to bottom."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the panel would send now."""

    @abstractmethod
    def set_prompt(self, text: str) -> None: ...

    @abstractmethod
    def save(self, path: str) -> None:
        """Have the chosen result saved as this file."""

    @abstractmethod
    def weigh(self, text: str, caret: int, steps: int) -> str:
        """Put the caret into a prompt and press Ctrl+Up or Ctrl+Down; the prompt then."""

    @abstractmethod
    def complete(self, text: str) -> str:
        """Type a text into the empty prompt, key by key, and take the first name that is offered; the prompt then."""

    @abstractmethod
    def reset(self) -> None:
        """Put the settings back."""

    @abstractmethod
    def layers(self) -> list[str]:
        """The layers from top to bottom."""

    @abstractmethod
    def seen(self, times: int = 1) -> np.ndarray:
        """What is seen of the document: RGBA. `times` as wide and high as it was when it was new."""

    @abstractmethod
    def furnish(self) -> None:
        """A group over the painting, in it a red layer of 60 x 40 pixels at (20, 30) with a mask that hides its right
        half; 144 pixels an inch.
        """

    @abstractmethod
    def set_more(self, mode: str, **values: Any) -> None:
        """Choose a mode and set some of its further settings."""

    @abstractmethod
    def to_front(self, size: tuple[int, int]) -> None:
        """Look at the open document of this size from now on."""

    @abstractmethod
    def inventory(self) -> dict[str, Any]:
        """What the document is made of: `size`, `resolution`, `profile`, `selection` (x, y, w, h), and `layers`: of
        each layer and mask, groups first, [name, kind, x, y, w, h].
        """

    @abstractmethod
    def alpha(self, layer: str) -> np.ndarray:
        """The alpha of a layer, over the whole document."""

    @abstractmethod
    def undo(self) -> None: ...

    @abstractmethod
    def redo(self) -> None: ...

    @abstractmethod
    def recipe(self, layer: str) -> str:
        """The recipe kept with a layer, as JSON."""

    @abstractmethod
    def sizes(self) -> list[list[int]]:
        """The sizes of all open documents."""

    @abstractmethod
    def close(self) -> None:
        """Close all documents."""

    @abstractmethod
    def apply_from_history(self, name: str) -> None:
        """Open the panel anew, find a result of that name in its strip, and add it as a layer."""
