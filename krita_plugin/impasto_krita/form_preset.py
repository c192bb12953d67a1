"""The list of presets above the generated settings: there where the server offers any."""

from __future__ import annotations

from typing import Any, Callable, List, Optional

from impasto_client.events import ServerCatalog
from impasto_client.presets import PresetChoice

from .form import ParamForm
from .qt import QComboBox, QHBoxLayout, QLabel, QWidget

__all__ = ["PresetRow"]

NONE = "None"


class PresetRow(QWidget):
    """Settings that belong together, taken at once; `told` hears what they were."""

    def __init__(self, form: ParamForm, parent: Optional[Any] = None) -> None:
        super().__init__(parent)
        self.told: Callable[[str], None] = lambda text: None
        self._form, self._choice = form, PresetChoice(form.model)
        self._titles: List[str] = []
        self.list = QComboBox()
        self.list.setObjectName("impasto_preset")
        self.list.setToolTip("Sets what belongs to a LoRA of few steps: the LoRA, the sampler, the steps and guidance.")
        self.list.setMinimumContentsLength(8)
        self.list.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.list.activated.connect(lambda *_: self._chosen())
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Preset"))
        row.addWidget(self.list, 1)
        self.setVisible(False)
        form.changed.connect(self._show)

    def offer(self, catalog: Optional[ServerCatalog], model: str) -> None:
        """Those for the checkpoint `model` and the settings that the form shows."""
        if catalog is not None:
            self._choice.offer(catalog.presets, catalog.models, model)
        self._show()

    def _show(self) -> None:
        titles = self._choice.titles()
        if titles != self._titles:
            self._titles = titles
            self.list.clear()
            self.list.addItems([NONE, *titles])
        self.list.setCurrentIndex(self._choice.current() + 1)
        self.setVisible(bool(titles))

    def _chosen(self) -> None:
        text = self._choice.choose(self.list.currentIndex() - 1)
        self._form.show_values()
        if text:
            self.told(text)
