"""The kept results as the wire tells them: in pages, by search, and as the `output` events that they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from impasto_protocol.geometry import Box
from impasto_protocol.messages import PAGE_LIMIT, History, HistoryEntry, HistoryOk, Output

from .journal import Entry, Journal
from .records import plain

__all__ = ["output_of", "page"]


def page(journal: Journal, asked: History) -> HistoryOk:
    """The answer to a `history`. Touches the disk: run it off the event loop."""
    words = (asked.search or "").casefold().split()
    starred = journal.starred()
    fitting = [
        entry
        for entry in journal.entries()
        if (asked.job is None or entry.job == asked.job)
        and (asked.begins is None or entry.job.startswith(asked.begins))
        and (not asked.starred or entry.name in starred)
        and _has_words(entry, words)
    ]
    rest = [entry for entry in fitting if entry.name < asked.after] if asked.after is not None else fitting
    limit = min(asked.limit, PAGE_LIMIT)
    shown = rest[:limit]
    return HistoryOk(
        asked.id,
        tuple(_to_wire(entry, entry.name in starred, asked.info) for entry in shown),
        len(fitting),
        shown[-1].name if len(rest) > limit else None,
    )


def output_of(entry: Entry, seq: int) -> Output:
    """The event that announces a result."""
    return Output(
        entry.job,
        seq,
        index=entry.index,
        digest=entry.digest,
        width=entry.width,
        height=entry.height,
        format=entry.format,
        placement=Box(*entry.box),
        name=entry.layer,
        stage=entry.stage,
        alpha=entry.alpha,
        seed=entry.seed,
        info=plain(entry.recipe),
    )


def _to_wire(entry: Entry, starred: bool, info: bool) -> HistoryEntry:
    return HistoryEntry(
        job=entry.job,
        index=entry.index,
        created=entry.created,
        digest=entry.digest,
        width=entry.width,
        height=entry.height,
        format=entry.format,
        placement=Box(*entry.box),
        name=entry.layer,
        mode=entry.mode,
        stage=entry.stage,
        alpha=entry.alpha,
        seed=entry.seed,
        starred=starred,
        info=plain(entry.recipe) if info else None,
    )


def _has_words(entry: Entry, words: list[str]) -> bool:
    if not words:
        return True
    recipe = entry.recipe
    params, model = _map(recipe.get("params")), recipe.get("model")
    parts = (entry.layer, entry.mode, entry.seed, params.get("prompt"), params.get("model"), recipe.get("parameters"))
    title = _map(model).get("title") if isinstance(model, Mapping) else model
    text = " ".join(str(part) for part in (*parts, title) if part is not None).casefold()
    return all(word in text for word in words)


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
