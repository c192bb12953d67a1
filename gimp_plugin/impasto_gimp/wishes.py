"""What a painter sets for a job: model, prompt, strength, seed and everything else; in the dialog and in the panel."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional

from impasto_client.events import ServerCatalog
from impasto_client.wording import describe_model
from impasto_protocol.schema import Mode

from .form import Form, spin_scale
from .toolkit import Gtk, column, label, row
from .widgets import Prompt, Seed

__all__ = ["Wishes"]

OWN_FIELDS = ("prompt", "negative_prompt", "strength", "model", "seed", "scale")
"""Parameters with a place of their own; all others go into the generated group."""
STRENGTHS = {"inpaint": 1.0, "sketch": 0.75}
"""Where the strength begins; each action keeps its own."""


class Wishes:
    """`top` holds what is always set, `more` the rest. Each mode keeps its own strength and further settings."""

    def __init__(self, modes: Mapping[str, Mode]) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.submitted: Callable[[], None] = lambda: None
        self.mode = ""
        self._modes = dict(modes)
        self._strengths = dict(STRENGTHS)
        self._overrides: Dict[str, Dict[str, Any]] = {}
        self._models: List[Mapping[str, Any]] = []
        self._wanted_model = ""
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
        self.form = Form()
        reset = Gtk.Button(label="Reset to defaults", halign=Gtk.Align.START)
        reset.set_name("impasto_reset")
        reset.connect("clicked", lambda *_: self.form.reset())
        self.fold = Gtk.Expander(label="More settings")
        self.fold.set_name("impasto_more")
        inside = column(self.form, reset, spacing=10)
        inside.set_margin_top(6)
        self.fold.add(inside)
        self.top = column(self.model, self.prompt, self.negative_fold, self.strength, self.scale)
        self.more = column(self.seed_row, self.fold)
        for prompt in (self.prompt, self.negative):
            prompt.submitted = lambda: self.submitted()
            prompt.changed = self._touched
        for scale in (self.strength, self.scale):
            scale.on_change(self._touched)
        self.seed.changed = self.form.changed = self._touched
        self.model.connect("changed", self._model_chosen)

    # ---- which mode, and what the server says of it

    def show_mode(self, name: str) -> None:
        """Show the settings of another mode; what was set for the last one is kept."""
        if self.mode:
            self._keep()
        self.mode = name
        paints = name != "upscale"
        for widget in (self.model, self.prompt, self.negative_fold, self.strength, self.seed_row):
            widget.set_visible(paints)
            widget.set_no_show_all(not paints)
        self.scale.set_visible(not paints)
        self.scale.set_no_show_all(paints)
        replaced = "what is selected" if name == "inpaint" else "the sketch"
        self.strength.set_tooltip_text(f"100 % replaces {replaced}; less keeps more of its forms and colours.")
        if name in self._strengths:
            self.strength.write(self._strengths[name])
        self.form.set_overrides(self._overrides.get(name, {}))
        self._describe()

    def set_catalog(self, catalog: ServerCatalog) -> None:
        """Take the server's own description and its models."""
        self._modes.update({mode.name: mode for mode in catalog.modes})
        usable = [m for m in catalog.models if m.get("kind") == "checkpoint" and m.get("usable", True)]
        self._models = usable + [m for m in catalog.models if not m.get("usable", True)]
        self._filling = True
        store = self.model.get_model()
        store.clear()
        if len(usable) != 1:
            store.append(["", "Automatic" if usable else "No model yet", "The server takes what suits best.", True])
        for entry in self._models:
            title = str(entry.get("title") or entry["id"])
            store.append([str(entry["id"]), title, describe_model(entry), bool(entry.get("usable", True))])
        wanted = next((r for r in store if r[0] == self._wanted_model and r[3]), None)
        self.model.set_active_id(wanted[0] if wanted is not None else store[0][0] if len(store) else None)
        self._filling = False
        self.form.set_models(catalog.models)
        self._describe()

    def _describe(self) -> None:
        mode = self._modes.get(self.mode)
        if mode is not None:
            self.form.set_params([p for p in mode.params if p.name not in OWN_FIELDS])
        self._hint()

    def _model_chosen(self, *_: Any) -> None:
        if not self._filling:
            self._wanted_model = self.model.get_active_id() or ""
            self._hint()
            self._touched()

    def _hint(self) -> None:
        """The chosen checkpoint's own defaults and words."""
        entry: Optional[Mapping[str, Any]]
        entry = next((m for m in self._models if m["id"] == self.model.get_active_id()), None)
        hints = entry.get("hints") if entry is not None else None
        self.form.set_hints(hints if isinstance(hints, Mapping) else {})
        tip = describe_model(entry) if entry is not None else "The checkpoint that paints."
        self.model.set_tooltip_text(tip)

    # ---- what is set

    def params(self) -> Dict[str, Any]:
        """The parameters as the painter set them; what was left alone stays with the server."""
        if self.mode == "upscale":
            return {"scale": self.scale.read(), **self.form.overrides()}
        params: Dict[str, Any] = {
            "prompt": self.prompt.text,
            "negative_prompt": self.negative.text,
            "strength": self.strength.read(),
            "seed": self.seed.seed(),
            **self.form.overrides(),
        }
        if self.model.get_active_id():
            params["model"] = self.model.get_active_id()
        return params

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Show parameters, those of a recipe for example; what they do not name goes back to its default."""
        mode = self._modes.get(self.mode)
        defaults = {p.name: p.default for p in mode.params} if mode is not None else {}
        self.prompt.text = str(params.get("prompt", ""))
        self.negative.text = str(params.get("negative_prompt", ""))
        if self.mode in STRENGTHS:
            self.strength.write(float(params.get("strength", STRENGTHS[self.mode])))
        self.scale.write(float(params.get("scale", 2.0)))
        self.seed.set_seed(int(params.get("seed", -1)))
        self._wanted_model = str(params.get("model", ""))
        if self._wanted_model:
            self.model.set_active_id(self._wanted_model)
        rest = {k: v for k, v in params.items() if k not in OWN_FIELDS and k in defaults and v != defaults[k]}
        self.form.set_overrides(rest)

    def state(self) -> Dict[str, Any]:
        """What is kept until another day."""
        self._keep()
        return {
            "prompt": self.prompt.text,
            "negative_prompt": self.negative.text,
            "strengths": self._strengths,
            "scale": self.scale.read(),
            "seed": self.seed.seed(),
            "model": self._wanted_model,
            "more": self._overrides,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take what `state` gave; raises ValueError or TypeError for what it cannot have given."""
        self.prompt.text = str(kept.get("prompt", ""))
        self.negative.text = str(kept.get("negative_prompt", ""))
        self._strengths.update({str(mode): float(v) for mode, v in dict(kept.get("strengths", {})).items()})
        self.scale.write(float(kept.get("scale", 2.0)))
        self.seed.set_seed(int(kept.get("seed", -1)))
        self._wanted_model = str(kept.get("model", ""))
        self._overrides = {str(mode): dict(values) for mode, values in dict(kept.get("more", {})).items()}

    def _keep(self) -> None:
        if self.mode in self._strengths:
            self._strengths[self.mode] = self.strength.read()
        self._overrides[self.mode] = self.form.overrides()

    def _touched(self, *_: Any) -> None:
        filled = bool(self.negative.text.strip())
        self.negative_fold.set_label("Negative prompt" + (" •" if filled else ""))
        self.changed()
