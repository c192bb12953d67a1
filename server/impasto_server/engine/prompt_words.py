"""From what the painter wrote to the prompts of one picture: styles, comments, choices. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .extra_networks import LoraUse
from .modes import Common, DiffusionParams, ModeParams
from .params_hires import Hires
from .prompt_errors import told_as_request
from .prompt_grammar import Nodes, Prompt, parse_negative, parse_prompt
from .prompt_styles import Style, apply_style, read_styles, style_names, take_styles
from .wildcards import WildcardFolders, expand, strip_comments

__all__ = ["WordFiles", "WordSources", "Words", "check_words", "resolve_words"]

_SIDES = ("prompt", "negative_prompt")


@dataclass(frozen=True)
class WordFiles:
    """What the prompts of one job need from files: its styles by name, and the lines of its wildcards."""

    styles: Mapping[str, Style] = field(default_factory=dict)
    wildcards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class WordSources:
    """Where styles and wildcards lie. Touches the disk when asked: keep it off an event loop."""

    styles: tuple[Path, ...] = ()
    wildcards: WildcardFolders = field(default_factory=WildcardFolders)

    def gather(self, params: ModeParams) -> WordFiles:
        """What `params` names. Raises RequestError for an unknown style or wildcard and an unreadable file."""
        if not isinstance(params, Common):
            return WordFiles()
        styles = take_styles(params.styles, read_styles(self.styles)) if params.styles.strip() else {}
        lines: dict[str, tuple[str, ...]] = {}
        for fields in _passes(params):
            for side, text in _written(params, fields, styles).items():
                with told_as_request(f"params.{fields[side]}", getattr(params, fields[side])):
                    lines |= self.wildcards.gather([text])
        return WordFiles(styles, lines)


@dataclass(frozen=True)
class Words:
    """The prompts of one picture, no choice left; `tree` and `negative` are what they say.

    They may be resolved again and stay as they are, so that they are what a recipe keeps. `hires` are those of the
    hires pass where it has prompts of its own.
    """

    prompt: str
    negative_prompt: str
    tree: Prompt
    negative: Nodes
    hires: Words | None = None

    @property
    def loras(self) -> tuple[LoraUse, ...]:
        """The LoRAs that the prompt asks for."""
        return self.tree.loras

    def params(self, params: DiffusionParams) -> DiffusionParams:
        """`params` with these prompts, their styles used up."""
        params = replace(params, prompt=self.prompt, negative_prompt=self.negative_prompt, styles="")
        if self.hires is None or not isinstance(params, Hires):
            return params
        # Both, since what an empty one took had its styles then.
        return replace(params, hires_prompt=self.hires.prompt, hires_negative_prompt=self.hires.negative_prompt)


def resolve_words(params: DiffusionParams, files: WordFiles, seed: int) -> Words:
    """The prompts of the picture with `seed`. Raises RequestError `request.invalid_param` that says where."""
    first, *second = (_resolved(params, fields, files, seed) for fields in _passes(params))
    return replace(first, hires=second[0]) if second else first


def check_words(params: ModeParams, files: WordFiles) -> None:
    """Raise what the run would raise, as far as it can be known before the seed is drawn."""
    if isinstance(params, Common):
        resolve_words(params, files, max(params.seed, 0))


_Fields = Mapping[str, str]
"""Side -> the parameter that holds its text."""


def _passes(params: DiffusionParams) -> tuple[_Fields, ...]:
    """The first pass, and the hires pass where it has a prompt of its own; the other side is that of the first then."""
    first = {side: side for side in _SIDES}
    if not isinstance(params, Hires) or not params.hires:
        return (first,)
    own = {side: f"hires_{side}" for side in _SIDES if getattr(params, f"hires_{side}").strip()}
    return (first, {**first, **own}) if own else (first,)


def _resolved(params: DiffusionParams, fields: _Fields, files: WordFiles, seed: int) -> Words:
    texts: dict[str, str] = {}
    for side, text in _written(params, fields, take_styles(params.styles, files.styles)).items():
        with told_as_request(f"params.{fields[side]}", getattr(params, fields[side])):
            # The same choices in both passes: the picture is the same one.
            texts[side] = expand(text, files.wildcards, f"{side} {seed}")
    with told_as_request(f"params.{fields['prompt']}", getattr(params, fields["prompt"])):
        tree = parse_prompt(texts["prompt"])
    with told_as_request(f"params.{fields['negative_prompt']}", getattr(params, fields["negative_prompt"])):
        negative = parse_negative(texts["negative_prompt"])
    return Words(texts["prompt"], texts["negative_prompt"], tree, negative)


def _written(params: DiffusionParams, fields: _Fields, styles: Mapping[str, Style]) -> dict[str, str]:
    """Both prompts with their styles, without comments."""
    texts = {}
    for side in _SIDES:
        written = getattr(params, fields[side])
        text = strip_comments(written)
        if text != written:
            text = text.strip()  # what stood before a comment shall meet the style without its spaces
        for name in style_names(params.styles):
            text = apply_style(text, strip_comments(getattr(styles[name], side)))
        texts[side] = text
    return texts
