"""A1111's `parameters` text: what is written is read again, what others wrote is understood, nothing is dropped."""

from __future__ import annotations

import dataclasses
import string
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from impasto_protocol.geometry import Size
from impasto_protocol.schema import AUTO, Param
from impasto_server.engine.extra_networks import format_networks
from impasto_server.engine.fields import params_of
from impasto_server.engine.infotext import MAX_NOTES, Match, Understood, read_infotext
from impasto_server.engine.infotext_keys import enum_name, schedule_title
from impasto_server.engine.infotext_text import MAX_TEXT, format_infotext, read_pairs, split_infotext
from impasto_server.engine.infotext_write import infotext
from impasto_server.engine.modes import MODES, Txt2Img, needs_checkpoint, parse_params
from impasto_server.engine.params_common import SAMPLERS, SCHEDULES
from impasto_server.engine.prompt_styles import Style, apply_style, pull_styles, style_names
from impasto_server.engine.samplers import SAMPLERS as SAMPLER_TABLE

PAINTING = [mode for mode in MODES if needs_checkpoint(mode)]


# ---- what was written is read again

SIGNS = string.ascii_letters + string.digits + " ,:\n\"'\\()[]{}|<>#-_é林\r\t\x85\u2028"


def values_of(param: Param) -> st.SearchStrategy[Any]:
    if param.enum:
        return st.sampled_from(param.enum)
    if param.type == "boolean":
        return st.booleans()
    if param.type == "integer":
        return st.integers(int(param.minimum or 0), int(param.maximum or 100))
    if param.type == "number":
        numbers: st.SearchStrategy[Any] = st.floats(param.minimum, param.maximum)
        return st.one_of(st.just(AUTO), numbers) if param.auto else numbers
    if param.type == "array":
        return st.lists(st.fixed_dictionaries({p.name: values_of(p) for p in param.items}), max_size=2)
    if param.name == "styles":
        return st.just("")  # used up before anything is written
    if "model" in param.choices.values() or param.choices:
        return st.text(string.ascii_letters + " ._-,", min_size=1, max_size=12).filter(lambda s: s == s.strip())
    return st.text(SIGNS, max_size=min(60, int(param.maximum or 60)))


@st.composite
def jobs(draw: st.DrawFn) -> tuple[str, Any]:
    mode = draw(st.sampled_from(PAINTING))
    values = {p.name: draw(values_of(p)) for p in params_of(MODES[mode][0])}
    values |= {"seed": draw(st.integers(0, 2**32 - 1)), "batch": 1, "vary": []}  # a text is of one picture
    for name in ("width", "height"):
        if name in values:
            values[name] = draw(st.integers(8, 512)) * 8
    return mode, parse_params(mode, values)


def written(mode: str, params: Any) -> str:
    size = Size(getattr(params, "width", 512), getattr(params, "height", 768))
    title = SAMPLER_TABLE[params.sampler][1] if params.sampler in SAMPLER_TABLE else params.sampler
    again = getattr(params, "hires_sampler", "same")
    return infotext(
        mode,
        params,
        seed=params.seed,
        model=params.model,
        working=size,
        sampler_title=title,
        schedule=params.schedule,
        hires_sampler=SAMPLER_TABLE[again][1] if again in SAMPLER_TABLE else "",
    )


def with_what_ran(params: Any) -> Any:
    """The parameters as the text says them: LoRAs in the prompt, "auto" as what it came to."""
    changes: dict[str, Any] = {"prompt": params.prompt + format_networks(params.lora_uses), "loras": []}
    if hasattr(params, "content"):
        changes["masked_content"] = params.content
    return dataclasses.replace(params, **changes)


@given(jobs())
def test_what_is_written_is_read_again(job: tuple[str, Any]) -> None:
    mode, params = job
    read = read_infotext(written(mode, params))
    assert read.mode == mode and read.source == "Impasto"
    assert parse_params(read.mode, read.params) == with_what_ran(params)
    assert {note.kind for note in read.notes if note.key != "control"} <= {"info"}, read.notes


@pytest.mark.parametrize("mode", PAINTING)
def test_a_job_at_its_defaults_reads_as_in_a1111(mode: str) -> None:
    """No key of ours where A1111's say everything."""
    text = written(mode, parse_params(mode, {"seed": 5, "prompt": "a fox", "model": "m"}))
    assert ("Impasto:" in text) == (mode in ("sketch", "refine"))
    assert text.endswith(", Version: Impasto") and text.startswith("a fox\nSteps: 20, Sampler: DPM++ 2M, ")


def test_every_sampler_and_schedule_can_be_read() -> None:
    assert {name: enum_name(title) for name, (_, title) in SAMPLER_TABLE.items()} == {n: n for n in SAMPLER_TABLE}
    assert [enum_name(schedule_title(name)) for name in SCHEDULES] == list(SCHEDULES)
    assert set(SAMPLERS) == set(SAMPLER_TABLE)


@given(st.text(max_size=200))
@example("a: b, c: d, e")
def test_any_text_is_understood(text: str) -> None:
    read = read_infotext(text)
    parse_params(read.mode, read.params)


@given(st.lists(st.tuples(st.text(string.ascii_letters + " -/", min_size=2), st.text(SIGNS, min_size=1)), min_size=3))
def test_pairs_are_read_again(pairs: list[tuple[str, str]]) -> None:
    pairs = [(key.strip(" -/"), value) for key, value in pairs]
    if all(len(key) > 1 for key, _ in pairs):
        found = split_infotext(format_infotext("a prompt", "", pairs))
        assert (found.prompt, list(found.pairs), found.rest) == ("a prompt", pairs, ())


# ---- what others wrote; the texts are our own, in the form of each version

V1_4 = """a lighthouse on a cliff, (storm:1.2), <lora:inkwash:0.7>
oil on canvas
Negative prompt: blurry, low quality,
text
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 2914573021, Size: 512x768, Model hash: 0123456789, Model: \
deliberate_v2, Denoising strength: 0.7, Clip skip: 2, ENSD: 31337, Hires upscale: 2, Hires upscaler: Latent"""

V1_6 = """a red fox
Negative prompt: blurry
Steps: 20, Sampler: DPM++ SDE Karras, CFG scale: 7, Seed: 12, Size: 512x512, Model hash: 0123456789, Model: \
dreamshaper_8, VAE hash: abcdef0123, VAE: vae-ft-mse-840000-ema-pruned.safetensors, Variation seed: 3, Variation seed \
strength: 0.1, Lora hashes: "inkwash: 00112233aabb", RNG: CPU, NGMS: 1.5, ControlNet 0: "Module: canny, Model: \
control_v11p_sd15_canny [d14c016b], Weight: 1.0, Resize Mode: Crop and Resize, Low Vram: False, Processor Res: 512, \
Guidance Start: 0.0, Guidance End: 1.0, Pixel Perfect: True, Control Mode: Balanced", ADetailer model: \
face_yolov8n.pt, ADetailer confidence: 0.3, ADetailer model 2nd: hand_yolov8n.pt, Version: v1.6.0"""

V1_10 = """a red fox
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 12, Size: 512x512, Model hash: 0123456789, \
Model: dreamshaper_8, Denoising strength: 0.6, Mask blur: 8, Inpaint area: Only masked, Masked area padding: 48, \
Masked content: fill, Version: v1.10.1"""

FORGE = """a red fox
Steps: 25, Sampler: Euler a, Schedule type: SGM Uniform, CFG scale: 5, Distilled CFG Scale: 3.5, Seed: 99, \
Size: 640x512, Model hash: 0123456789, Model: dreamshaper_8, Hardware: card, Version: f2.0.1v1.10.1-previous-1"""

KRITA = """a red fox
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.0, Seed: 1234, Size: 512x512, Model hash: unknown, Model: \
dreamshaper_8.safetensors, Denoising strength: 0.45, Version: 1.17.0"""


SD_NEXT = """a red fox
Negative prompt: blurry
Steps: 20, Seed: 7, Sampler: Euler a, CFG scale: 6, Size: 512x512, Parser: Full parser, Model: dreamshaper_8, Model \
hash: 0123456789, Backend: Diffusers, App: SD.Next, Version: 0123abc, Operations: txt2img"""


def noted(read: Understood, kind: str) -> dict[str, str]:
    return {note.key: note.value for note in read.notes if note.kind == kind}


def test_a_hires_pass_is_read_with_its_strength() -> None:
    read = read_infotext(V1_4).params
    assert read["hires"] and read["hires_scale"] == 2.0 and read["hires_upscaler"] == "latent"
    assert read["hires_strength"] == 0.7 and "strength" not in read


def test_a1111_1_4() -> None:
    read = read_infotext(V1_4)
    assert read.mode == "txt2img"
    params = dict(read.params)
    assert params.pop("prompt").endswith("<lora:inkwash:0.7>\noil on canvas"), "a LoRA stays where it works"
    assert params.pop("negative_prompt") == "blurry, low quality,\ntext"
    expected = {"steps": 28, "sampler": "dpmpp_2m", "schedule": "karras", "cfg": 6.5, "seed": 2914573021}
    expected |= {"width": 512, "height": 768, "model": "deliberate_v2", "clip_skip": 2, "noise": "philox"}
    assert {name: params[name] for name in expected} == expected
    every_key_is_somewhere(V1_4, read)


def test_a1111_1_6() -> None:
    read = read_infotext(V1_6)
    assert read.mode == "txt2img" and read.source == "AUTOMATIC1111 v1.6.0"
    assert (read.params["sampler"], read.params["schedule"]) == ("dpmpp_sde", "karras")
    assert read.params["noise"] == "torch-cpu" and read.params["clip_skip"] == 1, "left out means A1111's default"
    assert noted(read, "unsupported")["ADetailer model 2nd"] == "hand_yolov8n.pt"
    guided = noted(read, "missing")["ControlNet 0"]
    assert guided.startswith("Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight")
    every_key_is_somewhere(V1_6, read)


def test_a1111_1_10() -> None:
    read = read_infotext(V1_10)
    expected = {"strength": 0.6, "area": "masked", "padding": 48, "masked_content": "fill", "invert": False}
    expected |= {"grow": 0, "feather": 0, "blend": 20, "negative_prompt": ""}
    assert read.mode == "inpaint" and {name: read.params[name] for name in expected} == expected
    assert "Mask blur" in noted(read, "changed") and noted(read, "info")["Size"] == "512x512"
    assert not noted(read, "assumed")
    every_key_is_somewhere(V1_10, read)
    less = read_infotext(
        V1_10.replace("Inpaint area: Only masked, Masked area padding: 48, Masked content: fill, ", "")
    )
    assert (less.params["area"], less.params["masked_content"]) == ("whole", "original")
    assert noted(less, "assumed") == {"": "area whole, masked_content original"}


def test_relatives() -> None:
    forge = read_infotext(FORGE)
    assert forge.source == "Forge f2.0.1v1.10.1-previous-1" and forge.params["schedule"] == "sgm_uniform"
    assert noted(forge, "unknown") == {"Distilled CFG Scale": "3.5", "Hardware": "card"}
    assert (forge.params["width"], forge.params["height"]) == (640, 512)
    krita = read_infotext(KRITA)
    assert krita.mode == "img2img" and krita.params["strength"] == 0.45 and krita.params["cfg"] == 7
    next_ = read_infotext(SD_NEXT)
    assert next_.source == "SD.Next" and next_.params["sampler"] == "euler_a" and next_.params["cfg"] == 6
    assert noted(next_, "unknown") == {"Parser": "Full parser", "Backend": "Diffusers", "Operations": "txt2img"}
    for text, read in ((FORGE, forge), (KRITA, krita), (SD_NEXT, next_)):
        every_key_is_somewhere(text, read)


def every_key_is_somewhere(text: str, read: Understood) -> None:
    """Nothing is dropped: what set nothing is told, with its value."""
    known = {
        "Steps": "steps",
        "Sampler": "sampler",
        "Schedule type": "schedule",
        "CFG scale": "cfg",
        "Seed": "seed",
        "Size": "width",
        "Model": "model",
        "Denoising strength": "strength",
        "Clip skip": "clip_skip",
        "RNG": "noise",
        "Inpaint area": "area",
        "Masked area padding": "padding",
        "Masked content": "masked_content",
        "Variation seed strength": "variation_strength",
    }
    told = {(note.key, note.value) for note in read.notes}
    for key, value in split_infotext(text).pairs:
        if (key, value) not in told and key not in ("Version", "Model hash"):
            assert known.get(key, key.lower().replace(" ", "_")) in read.params or hires_is_taken(key, read), key


def hires_is_taken(key: str, read: Understood) -> bool:
    return key.startswith(("Hires", "Denoising")) and any(name.startswith("hires") for name in read.params)


def test_keys_of_sampling() -> None:
    said = (
        "a fox\nSteps: 20, Sampler: Heun, Schedule type: Polyexponential, CFG scale: 7, Seed: 5, Size: 512x512, "
        "RNG: NV, Variation seed: 9, Variation seed strength: 0.25, Seed resize from: 384x640, ENSD: 31337, Eta: "
        "0.67, Sigma churn: 2.5, Sigma tmin: 0.1, Sigma tmax: 9, Sigma noise: 1.003, NGMS: 4, NGMS all steps: True, "
        "CFG Rescale: 0.7, Noise Schedule: Zero Terminal SNR"
    )
    read = read_infotext(said)
    wanted = {
        "sampler": "heun",
        "schedule": "polyexponential",
        "variation_seed": 9,
        "variation_strength": 0.25,
        "seed_resize_width": 384,
        "seed_resize_height": 640,
        "ensd": 31337,
        "eta": 0.67,
        "s_churn": 2.5,
        "s_tmin": 0.1,
        "s_tmax": 9.0,
        "s_noise": 1.003,
        "ngms": 4.0,
        "ngms_all": True,
        "cfg_rescale": 0.7,
        "zero_terminal_snr": True,
    }
    assert {name: read.params[name] for name in wanted} == wanted and not read.notes
    image = read_infotext("x\nSteps: 9, Seed: 1, Denoising strength: 0.5, Noise multiplier: 0.9, Extra noise: 0.05")
    assert (image.params["noise_multiplier"], image.params["extra_noise"]) == (0.9, 0.05)


@pytest.mark.parametrize(
    ("said", "sampler", "schedule"),
    [
        ("Sampler: DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("Sampler: DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde_heun", "exponential"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpmpp_2m", "automatic"),
        ("Sampler: DPM++ 2M Karras, Schedule type: Align Your Steps", "dpmpp_2m", "align_your_steps"),
        ("Sampler: DPM2 a Karras", "dpm2_a", "karras"),
        ("Sampler: DDIM", "ddim", "ddim"),
        ("Sampler: DDIM, Schedule type: Automatic", "ddim", "ddim"),
        ("Sampler: DDIM, Schedule type: Uniform", "ddim", "uniform"),
        ("Sampler: PLMS", "plms", "automatic"),
    ],
)
def test_samplers_of_old_pictures(said: str, sampler: str, schedule: str) -> None:
    read = read_infotext(f"x\nSteps: 20, {said}, Seed: 1")
    assert (read.params["sampler"], read.params["schedule"]) == (sampler, schedule) and not read.notes


def test_eta_of_ddim_has_its_own_key() -> None:
    for sampler, key in (("ddim", "Eta DDIM"), ("euler_a", "Eta")):
        text = infotext(
            "txt2img",
            Txt2Img(sampler=sampler, eta=0.5, seed=1),
            seed=1,
            model="m",
            working=Size(64, 64),
            sampler_title=sampler,
            schedule="uniform",
        )
        assert split_infotext(text).values[key] == "0.5" and read_infotext(text).params["eta"] == 0.5


def test_keys_that_have_other_names() -> None:
    said = "x\nSteps: 9, Seed: 1, Sigma tmax: inf, Negative Guidance minimum sigma: 2.5, Emphasis: Original"
    read = read_infotext(said)
    assert (read.params["s_tmax"], read.params["ngms"]) == (0, 2.5)
    assert noted(read, "info") == {"Emphasis": "Original"} and len(read.notes) == 1


def test_models_of_the_hires_pass_are_looked_for_too() -> None:
    said = "x\nSteps: 9, Seed: 1, Denoising strength: 0.5, Hires upscaler: {}, Hires checkpoint: {}"
    read = read_infotext(said.format("4x-Foolhardy", "deliberate [0123456789]"), Shelf())
    assert read.params["hires_upscaler"] == "4x-Foolhardy" and read.params["hires_model"] == "deliberate_v3"
    assert noted(read, "missing") == {"Hires upscaler": "4x-Foolhardy"}
    for upscaler, ours in (("None", ""), ("Lanczos", ""), ("Latent (bicubic)", "latent_bicubic")):
        told = read_infotext(said.format(upscaler, "deliberate [0123456789]"), Shelf())
        assert told.params["hires_upscaler"] == ours and not noted(told, "missing")


def test_control() -> None:
    """Its pictures are in no file: what is known is told, and ours are named."""
    read = read_infotext(V1_6)
    assert "control" not in read.params and noted(read, "missing")["ControlNet 0"].startswith("Module: canny")
    unit = {"model": "edges, fine", "image": "control_1", "preprocessor": "canny", "weight": 0.8, "mode": "prompt"}
    text = written("txt2img", parse_params("txt2img", {"control": [unit], "seed": 1, "width": 64, "height": 64}))
    pairs = dict(read_pairs(split_infotext(text).values["ControlNet 0"])[0])
    assert pairs["Module"] == "canny" and pairs["Model"] == "edges, fine" and pairs["Threshold A"] == "-1"
    assert pairs["Control Mode"] == "My prompt is more important"
    own = read_infotext(text)
    assert own.params["control"][0].items() >= unit.items() and noted(own, "missing") == {"control": "control_1"}


# ---- the form


@pytest.mark.parametrize(
    ("line", "pairs", "junk"),
    [
        ("Steps: 20, Size: 8x8", [("Steps", "20"), ("Size", "8x8")], []),
        ('A key: "a, b: \\"c\\" \\n d", Other: x', [("A key", 'a, b: "c" \n d'), ("Other", "x")], []),
        ("CFG scale: 7, and words, Seed: 1", [("CFG scale", "7"), ("Seed", "1")], ["and words"]),
        ("(x) Steps: 1, : 2, a: 3", [("Steps", "1")], ["(x)", ": 2", "a: 3"]),
        ('Bad: "never closed, Seed: 1', [("Bad", '"never closed'), ("Seed", "1")], []),
        ("Empty: , Time: 12:30", [("Empty", ""), ("Time", "12:30")], []),
        ("AddNet Weight A/B 1: 2", [("AddNet Weight A/B 1", "2")], []),
    ],
)
def test_pairs(line: str, pairs: list[tuple[str, str]], junk: list[str]) -> None:
    assert read_pairs(line) == (pairs, junk)


def test_two_pairs_are_a_line_of_the_prompt() -> None:
    found = split_infotext("a cat\nratio: wide, mood: calm")
    assert found.prompt == "a cat\nratio: wide, mood: calm" and not found.pairs
    assert split_infotext("Steps: 1, Seed: 2, Size: 8x8").prompt == ""
    assert split_infotext("").pairs == ()


def test_lines_behind_the_parameters_are_told() -> None:
    text = "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Seed: 1\nTemplate: a {red|blue} fox"
    read = read_infotext(text)
    assert read.params["prompt"] == "a red fox" and read.params["negative_prompt"] == "blurry"
    assert [note.value for note in read.notes if note.kind == "unknown"] == ["Template: a {red|blue} fox"]


def test_wrong_values_are_told_and_not_taken() -> None:
    text = (
        "x\nSteps: 2000, Sampler: Euler z, CFG scale: nan, Seed: one, Size: big, RNG: dice, Clip skip: 1e999, "
        "Seed: two, Schedule type: Karas"
    )
    read = read_infotext(text)
    told = [(note.key, note.value) for note in read.notes if note.kind in ("unsupported", "unknown")]
    assert told == list(split_infotext(text).pairs)
    assert not {"steps", "sampler", "cfg", "seed", "width"} & set(read.params)
    messages = {note.key: note.message for note in read.notes}
    assert "the nearest is euler" in messages["Sampler"] and "the nearest is karras" in messages["Schedule type"]
    assert "from 1 to 150" in messages["Steps"]


def test_a_size_that_fits_no_latent_is_rounded_and_told() -> None:
    read = read_infotext("x\nSteps: 2, Seed: 1, Size: 510x770")
    assert (read.params["width"], read.params["height"]) == (512, 768)
    assert noted(read, "changed") == {"Size": "510x770"}


_SIGNS = ["a", " ", ",", ":", '"', "\\", 'a"', '"a: ', "a:", "\n", "-", "a, ", "aa: b, ", "aa: b\n"]


@pytest.mark.parametrize("sign", _SIGNS)
def test_the_longest_text_is_read_in_time(sign: str) -> None:
    text = "Steps: 1, Seed: 1, Size: 8x8, " + sign * (MAX_TEXT // len(sign))
    began = time.process_time()
    assert len(read_infotext(text).notes) <= MAX_NOTES + 1
    assert time.process_time() - began < 10


# ---- names


class Shelf:
    """Two models, two styles."""

    styles = {  # noqa: RUF012
        "Ink": Style("ink drawing of {prompt}, black and white", "colour"),
        "Fine": Style("highly detailed", "blurry"),
        "Nothing": Style("", ""),
    }

    def find(self, kind: str, name: str, digits: str = "") -> Match:
        if kind == "checkpoint" and digits == "0123456789":
            return Match("deliberate_v3")
        if kind == "lora" and name == "inkwash":
            return Match("inkwash")
        return Match("", "ink_wash" if kind == "lora" else "dream")


def test_models_are_found_by_hash_and_named_where_they_are_not() -> None:
    by_hash = read_infotext(V1_4, Shelf())
    assert by_hash.params["model"] == "deliberate_v3" and noted(by_hash, "changed") == {"Model": "deliberate_v2"}
    read = read_infotext("a <lora:inkwsh:1>\nSteps: 2, Seed: 1, Model: dreams", Shelf())
    assert read.params["model"] == "dreams" and noted(read, "missing") == {"Model": "dreams", "Prompt": "<lora:inkwsh>"}
    assert "The nearest is 'dream'" in next(note.message for note in read.notes if note.key == "Model")
    only_hash = read_infotext("a\nSteps: 2, Seed: 1, Size: 8x8, Model hash: 0123456789", Shelf())
    assert only_hash.params["model"] == "deliberate_v3"
    nothing = read_infotext("a\nSteps: 2, Seed: 1, Size: 8x8, Model hash: ffff", Shelf())
    assert "model" not in nothing.params and noted(nothing, "missing") == {"Model hash": "ffff"}


def test_styles_are_pulled_out_again() -> None:
    text = "ink drawing of a fox, highly detailed, black and white\nNegative prompt: red, blurry, colour\n"
    read = read_infotext(text + "Steps: 2, Seed: 1, Size: 8x8", Shelf())
    assert (read.params["prompt"], read.params["negative_prompt"]) == ("a fox", "red")
    assert read.params["styles"] == "Fine,Ink"


@given(
    st.text("ab, ", max_size=8),
    st.text("ab, ", max_size=8),
    st.dictionaries(
        st.sampled_from("pqr"),
        st.builds(
            Style, st.sampled_from(["a", "a, b", "b {prompt}", "{prompt}{prompt}", ""]), st.sampled_from(["", "b"])
        ),
    ),
)
def test_pulled_styles_give_the_prompts_again(prompt: str, negative: str, styles: dict[str, Style]) -> None:
    left, negative_left, names = pull_styles(prompt, negative, styles)
    for name in names:
        left = apply_style(left, styles[name].prompt)
        negative_left = apply_style(negative_left, styles[name].negative_prompt)
    assert (left, negative_left) == (prompt, negative)
    assert style_names(",".join(names)) == names
