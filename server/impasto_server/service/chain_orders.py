"""The links of a chain in a submit, checked as a whole before it is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from impasto_protocol.errors import ImpastoError, RequestError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import ChainLink

from ..engine.chain import CHAINABLE
from ..engine.jobs import Chain, Job, Link
from ..engine.modes import FaceSwap, Inpaint, Upscale
from ..engine.planning import Plan, check_box, outputs_of
from ..engine.prompt_words import WordSources
from .catalogue import Catalogue
from .control_orders import Guides, guides_of
from .resolving import Resolved, path_of, resolve

__all__ = ["MAX_LINKS", "LinkOrder", "chain_of", "check_chain", "job_of"]

MAX_LINKS = 8


@dataclass(frozen=True)
class LinkOrder:
    """One link that has been checked."""

    mode: str
    settings: Resolved
    pick: int
    guides: Guides = field(default_factory=Guides)


def check_chain(
    links: tuple[ChainLink, ...],
    catalogue: Catalogue,
    sources: WordSources,
    first: tuple[Resolved, ...],
    box: Box,
    plan: Plan,
) -> tuple[LinkOrder, ...]:
    """The links that follow a job of the settings `first` whose result belongs at `box`.

    Raises RequestError and ModelError whose path says which link is meant.
    """
    if len(links) > MAX_LINKS:
        raise RequestError(
            "request.invalid_param", f"A chain has at most {MAX_LINKS} links after its first job.", path="then"
        )
    # What a picture is scaled to; of an upscale that is a new document.
    size = plan.working if isinstance(first[0].params, Upscale) else (box if _is_over(first[0]) else plan.box).size
    made = sum(outputs_of(each.params) for each in first)
    orders = []
    for index, link in enumerate(links):
        with _about(f"then[{index}]"):
            order = _checked(link, catalogue, sources, made, size)
            whole = Box.of_size(size)
            planned = check_box(link.mode, order.settings.params, size, None, order.settings.native_size, whole)
        if isinstance(order.settings.params, Upscale):
            size = planned.working
        made = outputs_of(order.settings.params)
        orders.append(order)
    return tuple(orders)


def _is_over(settings: Resolved) -> bool:
    """Whether the result lies over the picture that was sent, all of which goes on."""
    return isinstance(settings.params, (Inpaint, FaceSwap))


def _checked(link: ChainLink, catalogue: Catalogue, sources: WordSources, made: int, size: Size) -> LinkOrder:
    if link.mode not in CHAINABLE:
        raise RequestError(
            "request.invalid_param",
            f"The mode {link.mode[:40]!r} cannot follow another job; {', '.join(CHAINABLE)} can.",
            path="mode",
        )
    if link.pick >= made:
        raise RequestError(
            "request.invalid_param",
            f"There is no picture {link.pick} to go on with; {made} will be made, counted from 0.",
            path="pick",
        )
    settings = resolve(catalogue, sources, link.mode, link.params)
    if len(settings) != 1 or settings[0].variant is not None:
        raise RequestError(
            "request.invalid_param", "Only the first job of a chain can vary; leave out vary here.", path="params.vary"
        )
    guides = guides_of(catalogue, settings[0].params, settings[0].model, {})
    return LinkOrder(link.mode, settings[0], link.pick, guides)


def chain_of(orders: tuple[LinkOrder, ...]) -> Chain:
    """The engine's chain; canvas, box and picture of each link come from the one before."""
    nowhere = Size(0, 0)
    return Chain(
        tuple(
            Link(
                job_of(
                    order.settings,
                    id="",
                    mode=order.mode,
                    canvas=nowhere,
                    box=Box.of_size(nowhere),
                    control=order.guides.control,
                    references=order.guides.references,
                    ip_adapters=order.guides.ip_adapters,
                    regions=order.guides.regions,
                ),
                order.pick,
            )
            for order in orders
        )
    )


def job_of(settings: Resolved, **fields: object) -> Job:
    """The engine's job of one picture's settings, with what only its submit knows."""
    return Job(
        params=settings.params,
        checkpoint=path_of(settings.model),
        partner_of=settings.partner_of,
        words=settings.words,
        loras=settings.loras,
        embeddings=settings.embeddings,
        hires_checkpoint=path_of(settings.hires_model),
        hires_upscaler=path_of(settings.hires_upscaler),
        second_upscaler=path_of(settings.second_upscaler),
        vaes=settings.vaes.files,
        **fields,  # type: ignore[arg-type]
    )


@contextmanager
def _about(link: str) -> Iterator[None]:
    try:
        yield
    except ImpastoError as error:
        error.path = f"{link}.{error.path}" if error.path else link
        raise
