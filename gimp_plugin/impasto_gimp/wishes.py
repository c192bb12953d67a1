"""What a painter sets for a job: model, prompt, strength, seed and everything else; in the dialog and in the panel."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from impasto_client import wishes as state
from impasto_client.events import ServerCatalog
from impasto_client.ways import PROMPTED, family_of
from impasto_protocol.schema import Mode

from .form import Form, spin_scale
from .form_preset import PresetRow
from .toolkit import Gtk, column, label, row
from .widgets import Prompt, Seed

__all__ = ["Wishes"]


class Wishes:
    """`top` holds what is always set, `more` the rest. Each mode keeps its own strength and further settings."""

    def __init__(self, modes: Mapping[str, Mode], layers: Callable[[], List[Tuple[str, str]]] = list) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.submitted: Callable[[], None] = lambda: None
        self.pasted: Callable[[str], None] = lambda text: None
        self.mode = ""
        self._modes = dict(modes)
        self._state = state.Wishes()
        self._models: List[Mapping[str, Any]] = []
        self._filling = False
        self.model = Gtk.ComboBox(model=Gtk.ListStore(str, str, str, bool), id_column=0)
        self.model.set_name("impasto_model")
        name = Gtk.CellRendererText(ellipsize=3, width_chars=16)
        self.model.pack_start(name, True)
        self.model.add_attribute(name, "text", 1)
        self.model.add_attribute(name, "sensitive", 3)
        self.prompt = Prompt("What should be there?", 3, "impasto_prompt")
        self.negative = Prompt("What should not be there?", 2, "impasto_negative_prompt")
        self.negative_fold = Gtk.Expander(label="Negative prompt")
        self.negative_fold.set_name("impasto_negative_fold")
        self.negative_fold.add(self.negative)
        self.strength = spin_scale("Strength", 0.0, 1.0, 0.01, "%")
        self.strength.set_name("impasto_strength")
        self.scale = spin_scale("Scale", 1.0, 8.0, 0.5, "×")
        self.scale.set_name("impasto_scale")
        self.scale.set_tooltip_text("How many times as wide and as high the new image is.")
        self.scale.write(2.0)
        self.seed = Seed()
        self.seed_row = row(self.seed)
        self.seed_row.pack_start(label("Seed", wrap=False), False, False, 0)
        self.seed_row.reorder_child(self.seed_row.get_children()[-1], 0)
        self.form = Form(layers)
        self.preset = PresetRow(self.form)
        self._presets: Sequence[Mapping[str, Any]] = ()
        reset = Gtk.Button(label="Reset to defaults", halign=Gtk.Align.START)
        reset.set_name("impasto_reset")
        reset.connect("clicked", lambda *_: self.form.reset())
        self.fold = Gtk.Expander(label="More settings")
        self.fold.set_name("impasto_more")
        self.experts = Gtk.CheckButton(label="Show all settings")
        self.experts.set_name("impasto_experts")
        self.experts.set_tooltip_text("Also those that are rarely needed.")
        self.experts.connect("toggled", self._experts)
        inside = column(self.preset, self.form, self.experts, reset, spacing=10)
        inside.set_margin_top(6)
        self.fold.add(inside)
        self.top = column(self.model, self.prompt, self.negative_fold, self.strength, self.scale)
        self.more = column(self.seed_row, self.fold)
        for prompt in (self.prompt, self.negative):
            prompt.submitted = lambda: self.submitted()
            prompt.pasted = lambda text: self.pasted(text)
            prompt.changed = self._touched
        for scale in (self.strength, self.scale):
            scale.on_change(self._touched)
        self.seed.changed = self.form.changed = self._touched
        self.model.connect("changed", self._model_chosen)

    # ---- which mode, and what the server says of it

    def show_mode(self, name: str) -> None:
        """Show the settings of another mode; what was set for the last one is kept."""
        if self.mode:
            self._read()
        self.mode = name
        paints = name in PROMPTED
        for widget in (self.model, self.prompt, self.negative_fold, self.strength, self.seed_row):
            widget.set_visible(paints)
            widget.set_no_show_all(not paints)
        if name == "txt2img":  # of which nothing is kept
            self.strength.set_visible(False)
            self.strength.set_no_show_all(True)
        self.scale.set_visible(name == "upscale")
        self.scale.set_no_show_all(name != "upscale")
        self.strength.set_tooltip_text(state.strength_tip(name))
        self._show_family()
        self._describe()

    def set_catalog(self, catalog: ServerCatalog) -> None:
        """Take the server's own description and its models."""
        self._modes.update({mode.name: mode for mode in catalog.modes})
        self._models, self._presets = list(catalog.models), catalog.presets
        self._filling = True
        rows = state.model_rows(self._models)
        store = self.model.get_model()
        store.clear()
        for choice in rows:
            store.append([choice.id, choice.title, choice.tip, choice.usable])
        self.model.set_active(state.chosen_row(rows, self._state.model))
        self._filling = False
        self.form.set_models(catalog.models)
        self._describe()

    def _describe(self) -> None:
        mode = self._modes.get(self.mode)
        if mode is not None:
            self.form.set_params(state.settings_of(mode))
        self._hint()

    def _model_chosen(self, *_: Any) -> None:
        if not self._filling:
            self._state.model = self.model.get_active_id() or ""
            self._hint()
            self._touched()

    def _hint(self) -> None:
        """The chosen checkpoint's own defaults and words."""
        chosen = self.model.get_active_id()
        self.form.set_hints(state.hints_of(self._models, chosen))
        self.preset.offer(self._presets, self._models, chosen or "")
        tips = [line[2] for line in self.model.get_model() if line[0] == chosen]
        self.model.set_tooltip_text(tips[0] if tips else "The checkpoint that paints.")

    # ---- what is set

    def params(self) -> Dict[str, Any]:
        """The parameters as the painter set them; what was left alone stays with the server."""
        self._read()
        return self._state.params(self.mode, self.model.get_active_id() or "", self.form.overrides())

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Show parameters, those of a recipe for example; what they do not name goes back to its default."""
        mode = self._modes.get(self.mode)
        self._read()
        self._state.take(self.mode, params, mode.params if mode is not None else ())
        self._write()

    def state(self) -> Dict[str, Any]:
        """What is kept until another day."""
        self._read()
        return self._state.kept()

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take what `state` gave; raises ValueError or TypeError for what it cannot have given."""
        self._state = state.Wishes.restored(kept)
        self._write()

    def _read(self) -> None:
        """Note what the widgets show."""
        wishes = self._state
        wishes.prompt, wishes.negative_prompt = self.prompt.text, self.negative.text
        wishes.scale, wishes.seed = self.scale.read(), self.seed.seed()
        wishes.advanced = self.experts.get_active()
        family = family_of(self.mode)
        if family in wishes.strengths:
            wishes.strengths[family] = self.strength.read()
        wishes.more[family] = self.form.chosen()

    def _write(self) -> None:
        """Show in the widgets what is wished for."""
        wishes = self._state
        self.prompt.text, self.negative.text = wishes.prompt, wishes.negative_prompt
        self.scale.write(wishes.scale)
        self.seed.set_seed(wishes.seed)
        self.experts.set_active(wishes.advanced)
        if wishes.model:
            self.model.set_active_id(wishes.model)
        self._show_family()

    def _show_family(self) -> None:
        """What the modes of one choice share."""
        family = family_of(self.mode)
        if family in self._state.strengths:
            self.strength.write(self._state.strengths[family])
        self.form.set_overrides(self._state.more.get(family, {}))
        self.preset.refresh()

    def _experts(self, button: Any) -> None:
        self.form.set_advanced(button.get_active())
        self._touched()

    def _touched(self, *_: Any) -> None:
        self.preset.refresh()
        filled = bool(self.negative.text.strip())
        self.negative_fold.set_label("Negative prompt" + (" •" if filled else ""))
        self.changed()
