"""The list of presets above the generated settings: there where the server offers any."""

from __future__ import annotations

from typing import Any, Callable, List, Mapping, Sequence

from impasto_client.presets import PresetChoice

from .form import Form
from .toolkit import Gtk, label

__all__ = ["PresetRow"]

NONE = "None"


class PresetRow(Gtk.Box):
    """Settings that belong together, taken at once; `told` hears what they were."""

    def __init__(self, form: Form) -> None:
        super().__init__(spacing=6)
        self.told: Callable[[str], None] = lambda text: None
        self._form, self._choice = form, PresetChoice(form.model)
        self._titles: List[str] = []
        self._filling = False
        self.list = Gtk.ComboBoxText()
        self.list.set_name("impasto_preset")
        self.list.set_tooltip_text(
            "Sets what belongs to a LoRA of few steps: the LoRA, the sampler, the steps and guidance."
        )
        self.list.connect("changed", lambda *_: self._chosen())
        self.pack_start(label("Preset", wrap=False), False, False, 0)
        self.pack_start(self.list, True, True, 0)
        self.show_all()
        self.set_no_show_all(True)
        self.hide()

    def offer(self, presets: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]], model: str) -> None:
        """Those for the checkpoint `model` and the settings that the form shows."""
        self._choice.offer(presets, models, model)
        self.refresh()

    def refresh(self) -> None:
        """Show which one the form's values are."""
        titles = self._choice.titles()
        self._filling = True
        if titles != self._titles:
            self._titles = titles
            self.list.remove_all()
            for title in (NONE, *titles):
                self.list.append_text(title)
        self.list.set_active(self._choice.current() + 1)
        self._filling = False
        self.set_visible(bool(titles))

    def _chosen(self) -> None:
        if self._filling:
            return
        text = self._choice.choose(self.list.get_active() - 1)
        self._form.show_values()
        if text:
            self.told(text)
