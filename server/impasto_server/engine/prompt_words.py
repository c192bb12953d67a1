"""From what the painter wrote to the prompts of one picture: styles, comments, choices. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from impasto_protocol.errors import RequestError

from .extra_networks import LoraUse
from .modes import Common, DiffusionParams, ModeParams
from .params_hires import Hires
from .prompt_errors import told_as_request
from .prompt_grammar import Nodes, Prompt, parse_negative, parse_prompt
from .prompt_styles import Style, apply_style, read_styles, style_names, take_styles
from .wildcards import WildcardFolders, expand, strip_comments

__all__ = ["WordFiles", "WordSources", "Words", "check_words", "counting_regions", "resolve_words"]

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
        for path, entry in counting_regions(params):
            for side in ("prompt", "negative"):
                with told_as_request(f"{path}.{side}", str(entry[side])):
                    lines |= self.wildcards.gather([strip_comments(str(entry[side]))])
        return WordFiles(styles, lines)


@dataclass(frozen=True)
class Words:
    """The prompts of one picture, no choice left; `tree` and `negative` are what they say.

    They may be resolved again and stay as they are, so that they are what a recipe keeps. `hires` are those of the
    hires pass where it has prompts of its own, `regions` those of the regions that count, in their order: what is said
    there after the common prompts, which `own` holds by itself.
    """

    prompt: str
    negative_prompt: str
    tree: Prompt
    negative: Nodes
    hires: Words | None = None
    regions: tuple[Words, ...] = ()
    own: tuple[str, str] = ("", "")

    @property
    def loras(self) -> tuple[LoraUse, ...]:
        """The LoRAs that the prompt asks for."""
        return self.tree.loras

    def params(self, params: DiffusionParams) -> DiffusionParams:
        """`params` with these prompts, their styles used up."""
        params = replace(params, prompt=self.prompt, negative_prompt=self.negative_prompt, styles="")
        if self.regions:
            entries = [entry for _, entry in counting_regions(params)]
            told = [
                {**entry, "prompt": words.own[0], "negative": words.own[1]}
                for entry, words in zip(entries, self.regions, strict=True)
            ]
            params = replace(params, regions=told)
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
    words = Words(texts["prompt"], texts["negative_prompt"], tree, negative)
    return replace(
        words,
        regions=tuple(_of_region(words, path, entry, files, seed) for path, entry in counting_regions(params)),
    )


def counting_regions(params: Common) -> list[tuple[str, Mapping[str, object]]]:
    """Where it stands, and the entry, of each region that is on and has a weight."""
    regions = enumerate(params.regions)
    return [(f"params.regions[{i}]", entry) for i, entry in regions if entry.get("enabled", True) and entry["weight"]]


def _of_region(common: Words, path: str, entry: Mapping[str, object], files: WordFiles, seed: int) -> Words:
    """What is said in a region: after the common prompts its own. Raises RequestError for parts with AND, and LoRAs."""
    texts = []
    for side in ("prompt", "negative"):
        written = str(entry[side])
        with told_as_request(f"{path}.{side}", written):
            texts.append(expand(strip_comments(written), files.wildcards, f"{path} {side} {seed}").strip())
    with told_as_request(f"{path}.prompt", str(entry["prompt"])):
        alone = parse_prompt(texts[0])
    if len(alone.parts) > 1 or alone.loras:
        what = "AND" if len(alone.parts) > 1 else "a LoRA"
        raise RequestError(
            "request.invalid_param",
            f"The prompt of a region cannot hold {what}: that counts for the whole picture; put it into the prompt.",
            path=f"{path}.prompt",
        )
    prompt, negative = (
        _after(one, own) for one, own in zip((common.prompt, common.negative_prompt), texts, strict=True)
    )
    with told_as_request(f"{path}.negative", str(entry["negative"])):
        unwanted = parse_negative(negative)
    return Words(prompt, negative, parse_prompt(prompt), unwanted, own=(texts[0], texts[1]))


def _after(common: str, own: str) -> str:
    return ", ".join(text for text in (common.rstrip().rstrip(","), own) if text)


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
