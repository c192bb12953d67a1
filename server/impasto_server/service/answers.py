"""What a session answers about the catalogue, about a job to come, and about a result to be taken further."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impasto_protocol.errors import RequestError
from impasto_protocol.messages import (
    PAGE_LIMIT,
    Catalog,
    CatalogRequest,
    ChainLink,
    Further,
    Message,
    ModelsOk,
    ModelsRequest,
    NotModified,
    Parameters,
    Plan,
    PlanOk,
    Word,
    WordsOk,
    WordsRequest,
)

from ..engine.further import further, remaining
from ..engine.params_common import SAMPLERS, SCHEDULES
from ..engine.planning import outputs_of
from ..engine.prompt_styles import read_styles
from .estimates import needs_of
from .orders import plan_for
from .preprocessors import described
from .presets import presets_of

if TYPE_CHECKING:
    from .session import Services

__all__ = ["CATALOG_MODELS", "catalog_for", "further_answer", "models_for", "plan_answer", "words_for"]

CATALOG_MODELS = 200
"""Models in the catalogue's own message at most; the others come in pages."""


def catalog_for(services: Services, message: CatalogRequest) -> Message:
    """All that the server can do, or that nothing has changed."""
    catalogue = services.catalogue
    rev, device = services.catalog_rev, services.device
    if message.rev is not None and message.rev == rev:
        return NotModified(message.id)
    return Catalog(
        message.id,
        rev,
        described(catalogue),
        tuple(model.to_wire() for model in catalogue.first(CATALOG_MODELS)),
        SAMPLERS,
        SCHEDULES,
        device,
        len(catalogue.models),
        presets_of(catalogue.models),
    )


def models_for(services: Services, message: ModelsRequest) -> ModelsOk:
    """One page of the models. Raises RequestError."""
    if message.after is not None and not (message.after.isascii() and message.after.isdigit()):
        raise RequestError(
            "request.invalid_param", "This is no `next` of a page of models; begin without it.", path="after"
        )
    fitting = services.catalogue.find(message.kind, message.search or "")
    # Digits enough for any list; more of them cost time to convert.
    start = int((message.after or "0")[:18])
    end = start + min(message.limit, PAGE_LIMIT)
    shown = tuple(model.to_wire() for model in fitting[start:end])
    following = str(end) if end < len(fitting) else None
    return ModelsOk(message.id, services.catalog_rev, shown, len(fitting), following)


def words_for(services: Services, message: WordsRequest) -> WordsOk:
    """What may be completed. Touches the disk: keep it off the event loop. Raises RequestError."""
    limit = min(message.limit, PAGE_LIMIT)
    if message.kind == "tag":
        found = services.tags.find(message.typed, limit)
        return WordsOk(message.id, tuple(Word(tag.text, tag.uses, alias) for tag, alias in found))
    if message.kind == "style":
        sought = message.typed.strip().casefold()
        names = [name for name in read_styles(services.words.styles) if sought in name.casefold()]
        names.sort(key=lambda name: (not name.casefold().startswith(sought), name.casefold()))
        return WordsOk(message.id, tuple(Word(name) for name in names[:limit]))
    raise RequestError(
        "request.invalid_param",
        f"There are words of the kinds tag and style, none of {message.kind[:40]!r}.",
        path="kind",
    )


def plan_answer(services: Services, message: Plan) -> PlanOk:
    """What a job needs. Touches the disk where prompts name files: keep it off the event loop."""
    plans, settings = plan_for(
        services.catalogue, message.mode, message.params, message.canvas, message.selection, services.words
    )
    first = plans[0]
    outputs = sum(outputs_of(each.params) for each in settings)
    return PlanOk(
        message.id,
        first.box,
        first.working,
        first.reach,
        sum(plan.all_steps for plan in plans),
        services.estimates.seconds(needs_of(settings, plans)),
        tuple(dict.fromkeys(said for plan in plans for said in plan.warnings)),
        first.final,
        outputs,
    )


def further_answer(services: Services, message: Further) -> Parameters:
    """The job that takes a result further. Touches the disk."""
    info = message.info
    if info is None and message.job is not None:
        entry = services.journal.entry(message.job, message.index)
        info = dict(entry.recipe)
    if message.way == "then":
        mode, params, rest = remaining(info or {})
        left = tuple(ChainLink(link["mode"], dict(link["params"]), int(link.get("pick", 0))) for link in rest)
        return Parameters(message.id, mode, params, then=left)
    mode, params = further(info or {}, message.way)
    return Parameters(message.id, mode, params, source="Impasto")
