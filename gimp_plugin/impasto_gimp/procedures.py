"""What the menu procedures do: from the arguments or the dialog to new layers, or to an error with a sentence."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Callable, Dict, List, Optional

from gi.repository import Gimp, GLib, GObject
from impasto_client.document import ResultLayer
from impasto_client.editor import Obstacle, Target
from impasto_client.enlarging import COPY, NEW, enlarged
from impasto_client.recipes import Packed, written_recipe
from impasto_client.targets import NEW_DOCUMENT, again, aim
from impasto_protocol.errors import ImpastoError, RequestError

from .arguments import built_in_modes, params_from, set_params
from .host import GimpHost
from .job import Cancelled, StatusBar, run_job
from .names import PANEL_ASK, Action

__all__ = ["end", "hand_to_panel", "run_action", "run_again"]

_log = logging.getLogger("impasto.gimp")


def end(procedure: Any, status: Any, message: str = "") -> Any:
    """The return values of a call that gives nothing back but its status."""
    error = GLib.Error.new_literal(Gimp.PlugIn.error_quark(), message, 0) if message else GLib.Error()
    return procedure.new_return_values(status, error)


def run_action(
    action: Action, procedure: Any, run_mode: Any, image: Any, drawables: List[Any], config: Any, data: Any = None
) -> Any:
    """One of the three actions, called from the menu or a script."""
    mode, host = built_in_modes()[action.mode], GimpHost(drawables)
    host.show_new = run_mode != Gimp.RunMode.NONINTERACTIVE

    def work() -> Any:
        if run_mode == Gimp.RunMode.INTERACTIVE:
            if hand_to_panel(image, action.mode):
                return end(procedure, Gimp.PDBStatusType.SUCCESS)
            sentence = host.obstacle(action.mode, image)
            if sentence:
                raise Obstacle(sentence)
            from .dialog import ask_params

            params = ask_params(action, mode, params_from(config, mode))
            if params is None:
                return end(procedure, Gimp.PDBStatusType.CANCEL)
            set_params(config, mode, params)
        else:
            params = params_from(config, mode)
        target = aim(host, action.mode, image, params)
        results = _run(host, target, action.title)
        if action.mode == NEW_DOCUMENT:
            return _open(procedure, host, target, results)
        return _paste(procedure, host, target, results)

    return _guarded(procedure, run_mode, work)


def run_again(procedure: Any, run_mode: Any, image: Any, drawables: List[Any], config: Any, data: Any = None) -> Any:
    """Make the active layer again from its recipe."""

    def work() -> Any:
        if len(drawables) != 1:
            raise Obstacle("Choose one layer that Impasto made.")
        changes: Dict[str, Any] = {"seed": -1} if config.get_property("new-seed") else {}
        host = GimpHost(drawables)
        target = again(host, image, drawables[0], changes)
        return _paste(procedure, host, target, _run(host, target, "Make again"))

    return _guarded(procedure, run_mode, work)


def hand_to_panel(image: Optional[Any], mode: str) -> bool:
    """Let the open panel do it, with the settings that it shows; False where there is no panel."""
    procedure = Gimp.get_pdb().lookup_procedure(PANEL_ASK)
    if procedure is None:
        return False
    config = procedure.create_config()
    config.set_property("image-id", image.get_id() if image is not None else 0)
    config.set_property("mode", mode)
    return bool(procedure.run(config).index(0) == Gimp.PDBStatusType.SUCCESS)


def _run(host: GimpHost, target: Target, title: str) -> List[ResultLayer]:
    with StatusBar(f"Impasto: {title}") as bar:
        return run_job(host, target, bar)


def _paste(procedure: Any, host: GimpHost, target: Target, results: List[ResultLayer]) -> Any:
    if not host.is_open(target.document):
        raise Obstacle("The image was closed meanwhile; the picture is kept in the server's history.")
    mask = Packed(target.region) if target.region is not None else None
    sketch = host.name_of(target.layer) if target.layer is not None and target.layer.is_valid() else None
    pictures = {name: host.name_of(layer) for name, layer in target.pictures.items() if layer.is_valid()}
    recipes = [written_recipe(result, target.area, mask, sketch, pictures) for result in results]
    host.paste(target.document, results, recipes, target.above)
    values = end(procedure, Gimp.PDBStatusType.SUCCESS)
    values.remove(1)
    values.insert(1, _layers_value(host.pasted))
    return values


def _open(procedure: Any, host: GimpHost, target: Target, results: List[ResultLayer]) -> Any:
    result = results[0]
    if target.into == NEW:
        host.open_new(result, written_recipe(result), target.resolution)
    else:
        if not host.is_open(target.document) or host.canvas_of(target.document) != target.canvas:
            raise Obstacle("The image was closed or scaled meanwhile; the picture is kept in the server's history.")
        size, box = enlarged(target, result.box.size)
        placed = dataclasses.replace(result, box=box)
        host.enlarge(target.document, placed, written_recipe(placed), size, target.into == COPY)
    values = end(procedure, Gimp.PDBStatusType.SUCCESS)
    values.remove(1)
    values.insert(1, GObject.Value(Gimp.Image, host.opened))
    return values


def _layers_value(layers: List[Any]) -> Any:
    """A list of layers as GIMP returns one. PyGObject cannot make it, but a procedure's arguments can."""
    config = Gimp.get_pdb().lookup_procedure("gimp-image-set-selected-layers").create_config()
    config.set_core_object_array("layers", layers)
    value = GObject.Value()
    value.init(Gimp.core_object_array_get_type())
    value.set_boxed(config.get_property("layers"))
    return value


def _guarded(procedure: Any, run_mode: Any, work: Callable[[], Any]) -> Any:
    """Run `work`; whatever it raises becomes an error status with a sentence."""
    status = Gimp.PDBStatusType
    # A script is told that its call was wrong; to a painter GIMP would show that as a riddle about procedures.
    wrong = status.CALLING_ERROR if run_mode == Gimp.RunMode.NONINTERACTIVE else status.EXECUTION_ERROR
    try:
        return work()
    except Cancelled:
        return end(procedure, status.CANCEL)
    except Obstacle as reason:
        return end(procedure, wrong, str(reason))
    except RequestError as error:
        return end(procedure, wrong, error.message)
    except ImpastoError as error:
        return end(procedure, status.EXECUTION_ERROR, error.message)
    except Exception as defect:
        _log.exception("a defect of Impasto's plug-in")
        text = f"A defect of Impasto's plug-in: {type(defect).__name__}: {defect}. Please report it."
        return end(procedure, status.EXECUTION_ERROR, text)
