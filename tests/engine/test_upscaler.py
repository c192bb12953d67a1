"""Upscaler models: every layout loads, tiles do not show, alpha and any scale are right, and what is wrong is told."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import ModelError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine import run as run_module
from impasto_server.engine import scratch, tiles
from impasto_server.engine import upscaler as upscaler_module
from impasto_server.engine.identify import ModelInfo, Unknown, identify_file
from impasto_server.engine.jobs import Cancelled, Job, Layer, Progress
from impasto_server.engine.modes import Upscale
from impasto_server.engine.planning import check_box
from impasto_server.engine.report import Report
from impasto_server.engine.run import Engine
from impasto_server.engine.tiles import FADE, MIN_TILE, OVERLAP, _fades, tile_side, tiled_rows, tiles_along
from impasto_server.engine.upscale import Enlarger, lanczos_rows, passes, upscale
from impasto_server.engine.upscaler import UpscalerModel, load_upscaler
from PIL import Image

from tests.engine.device import DEVICE
from tests.upscalers import compact, old_names, rrdb, save, swinir

CPU = torch.device("cpu")
KINDS: dict[str, tuple[Any, str, str, int]] = {
    "esrgan": (rrdb, "ESRGAN", "esrgan", 4),
    "esrgan 2x": (lambda: rrdb(scale=2), "ESRGAN", "esrgan", 2),
    "esrgan, old names": (lambda: old_names(rrdb()), "ESRGAN", "esrgan", 4),
    "compact": (compact, "RealESRGAN Compact", "esrgan", 2),
    "compact 4x": (lambda: compact(scale=4), "RealESRGAN Compact", "esrgan", 4),
    "swinir": (swinir, "SwinIR", "swinir", 2),
}


def load(path: Path) -> UpscalerModel:
    return load_upscaler(path, device=CPU, dtype=torch.float32)


def photograph(width: int, height: int) -> np.ndarray:
    """Smooth shapes and fine detail: RGBA, opaque."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 9 + c) * np.cos(y / (7 + c)) * 80 + 128 for c in range(3)]
    noise = np.random.default_rng(1).normal(0, 20, (height, width, 3))
    rgb = np.clip(np.stack(waves, axis=-1) + noise, 0, 255)
    return np.concatenate([rgb, np.full((height, width, 1), 255)], axis=-1).round().astype(np.uint8)


def job_of(image: np.ndarray, path: Path, scale: float) -> Job:
    canvas = Size(image.shape[1], image.shape[0])
    params = Upscale(scale=scale, upscaler=path.stem)
    return Job("u", "upscale", params, canvas, Box.of_size(canvas), str(path), image=image)


def run(image: np.ndarray, path: Path, scale: float, cancelled: Any = lambda: False) -> tuple[list[Any], Any]:
    events: list[Any] = []
    result = Engine(DEVICE, "fp32").run(job_of(image, path, scale), events.append, cancelled)
    return events, result


def by_model(image: np.ndarray, path: Path, scale: float, side: int) -> np.ndarray:
    job, events = job_of(image, path, scale), []
    planned = check_box("upscale", job.params, job.canvas, None, 0, job.box)
    assert isinstance(job.params, Upscale)
    report = Report(events.append, lambda: False)
    report.expect((("upscale", 1),))
    upscale(job, job.params, planned, report, Enlarger(load(path), side))
    return next(e.pixels for e in events if isinstance(e, Layer))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(abs(a.astype(int) - b).max())


# ---- loading


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed_and_loaded(tmp_path: Path, kind: str, ending: str) -> None:
    make, architecture, family, scale = KINDS[kind]
    path = save(tmp_path / f"x4{ending}", make())
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and (found.kind, found.family) == ("upscaler", family)
    model = load(path)
    assert (model.architecture, model.scale, model.whole) == (architecture, scale, False)
    assert model.dtype == torch.float32 and 0 < model.size_bytes < 2_000_000
    assert model(torch.rand(1, 3, 17, 13)).shape == (1, 3, 17 * scale, 13 * scale)


@pytest.mark.parametrize("wrapper", ["params_ema", "params"])
def test_wrapped_as_the_training_code_does(tmp_path: Path, wrapper: str) -> None:
    path = save(tmp_path / "RealESRGAN_x4plus.pth", rrdb(), wrapper)
    found = identify_file(path)
    assert isinstance(found, ModelInfo) and found.kind == "upscaler"
    plain = load(save(tmp_path / "plain.safetensors", rrdb()))
    picture = torch.rand(1, 3, 9, 9)
    assert torch.equal(load(path)(picture), plain(picture))


def test_old_and_new_names_are_the_same_network(tmp_path: Path) -> None:
    new = load(save(tmp_path / "new.pth", rrdb()))
    old = load(save(tmp_path / "old.pth", old_names(rrdb())))
    picture = torch.rand(1, 3, 20, 15)
    assert torch.equal(new(picture), old(picture))


def test_an_unusual_one_is_told_by_its_folder(tmp_path: Path) -> None:
    tensors = {f"blocks.{i}.weight": torch.ones(2, 2) for i in range(3)}
    elsewhere = identify_file(save(tmp_path / "models" / "x.pth", tensors))
    assert isinstance(elsewhere, Unknown)
    for folder in ("ESRGAN", "SwinIR", "upscale_models", "RealESRGAN/more"):
        found = identify_file(save(tmp_path / "models" / folder / "x.pth", tensors))
        assert isinstance(found, ModelInfo) and (found.kind, found.family) == ("upscaler", "")
    (tmp_path / "models" / "ESRGAN" / "bad.pth").write_bytes(b"\x80\x02garbage")
    broken = identify_file(tmp_path / "models" / "ESRGAN" / "bad.pth")
    assert isinstance(broken, Unknown) and broken.code == "model.corrupt"


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(path)
    assert path.name in caught.value.message
    return caught.value


def test_what_is_no_upscaler_is_refused(tmp_path: Path) -> None:
    assert refused(save(tmp_path / "foreign.pth", {"a": torch.ones(2)})).code == "model.unidentified"
    one = rrdb(scale=1)
    error = refused(save(tmp_path / "1x.pth", one))
    assert error.code == "model.unsupported" and "does not enlarge" in error.message
    grey = refused(save(tmp_path / "grey.pth", rrdb(channels=1)))
    assert grey.code == "model.unsupported" and grey.data["architecture"] == "ESRGAN"
    cut = rrdb()
    del cut["body.0.rdb2.conv3.weight"]
    assert refused(save(tmp_path / "cut.pth", cut)).code == "model.corrupt"
    bent = rrdb() | {"conv_hr.weight": torch.ones(8, 9, 3, 3)}
    assert refused(save(tmp_path / "bent.pth", bent)).code == "model.corrupt"
    assert refused(tmp_path / "absent.pth").code == "model.unknown"


def test_a_hostile_one_is_refused_by_name(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.system, ("touch pwned",)

    torch.save({"params_ema": {**rrdb(), "x": Hostile()}}, tmp_path / "h.pth")
    error = refused(tmp_path / "h.pth")
    assert error.code == "model.unsafe" and error.data["global"] == f"{os.name}.system"


def test_without_spandrel_it_says_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.pth", rrdb())

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(upscaler_module.importlib, "import_module", absent)
    error = refused(path)
    assert error.code == "model.unsupported" and "pip install --no-deps spandrel einops" in error.message


def test_a_torchvision_that_cannot_be_imported_does_no_harm(tmp_path: Path) -> None:
    """In a fresh process: spandrel loads beside a broken torchvision, and leaves nothing of a false one behind."""
    path = save(tmp_path / "x.pth", compact())
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms')")
    code = (
        "import sys, torch; from impasto_server.engine.upscaler import load_upscaler;"
        f"model = load_upscaler({str(path)!r}, device=torch.device('cpu'), dtype=torch.float32);"
        "print(model.architecture, [name for name in sys.modules if name.startswith('torchvision')])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert ran.stdout == "RealESRGAN Compact []\n", ran.stderr


# ---- tiles


@given(st.integers(1, 3000), st.integers(MIN_TILE // 16, 40).map(lambda n: 16 * n), st.sampled_from([2, 3, 4]))
def test_tiles_cover_everything_and_fade_into_each_other(length: int, side: int, scale: int) -> None:
    spans = tiles_along(length, side)
    assert spans[0][0] == 0 and spans[-1][1] == length
    total = np.zeros(length * scale)
    for index, ((start, end), fade) in enumerate(zip(spans, _fades(spans, scale), strict=True)):
        assert end - start <= side and start % 16 == 0
        total[start * scale : end * scale] += fade
        edge = (OVERLAP - FADE) // 2 * scale
        if index:
            assert spans[index - 1][1] - start >= OVERLAP
            assert not fade[: edge - scale].any(), "where a tile lacks its surroundings it is not used"
        if index + 1 < len(spans):
            assert not fade[len(fade) - edge + scale :].any()
    assert abs(total - 1).max() < 1e-5


@pytest.mark.parametrize("kind", ["esrgan", "compact", "swinir"])
def test_tiles_do_not_show(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / "x.pth", KINDS[kind][0]())
    image = photograph(190, 150)
    scale = KINDS[kind][3]
    whole = by_model(image, path, scale, 0)
    tiled = by_model(image, path, scale, MIN_TILE)
    assert whole.shape == (150 * scale, 190 * scale, 4) and whole[..., :3].std() > 3
    assert difference(whole, tiled) <= 1
    # Nor by a small step at the tiles' edges, where the eye is keen: as much there as anywhere else.
    apart = (tiled[..., :3].astype(int) - whole[..., :3]).mean(axis=(0, 2))
    assert abs(np.diff(apart)).max() < 0.25


def test_rows_come_out_in_order_and_once(tmp_path: Path) -> None:
    model = load(save(tmp_path / "x.pth", compact()))
    picture = photograph(150, 333)[..., :3]
    done: list[None] = []
    bands = list(tiled_rows(model, picture, MIN_TILE, lambda: done.append(None)))
    assert sum(map(len, bands)) == 666 and all(len(band) for band in bands)
    assert len(done) == len(tiles_along(150, MIN_TILE)) * len(tiles_along(333, MIN_TILE)) == 10


def test_tiles_are_as_large_as_memory_allows(tmp_path: Path) -> None:
    model = load(save(tmp_path / "x.pth", rrdb()))
    sides = [tile_side(model, free) for free in (0, 1 << 30, 1 << 31, 1 << 32, 1 << 35)]
    assert sides[0] == MIN_TILE and sides == sorted(sides) and sides[-1] == 512
    assert all(side % 16 == 0 for side in sides) and sides[1] < sides[2] < sides[3]


# ---- the whole


def test_flat_colours_stay_flat_and_alpha_is_kept(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", compact())
    image = photograph(60, 40)
    image[..., 3] = 77
    events, _ = run(image, path, 2)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    assert layer.alpha == "soft" and (layer.pixels[..., 3] == 77).all()
    image[..., 3] = 255
    image[:, 30:, 3] = 0
    events, _ = run(image, path, 2)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    assert (layer.pixels[:, :54, 3] > 250).all() and (layer.pixels[:, 66:, 3] < 3).all()


def test_no_hidden_colour_shows_in_the_edges_of_what_is_transparent(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", compact())
    image = np.zeros((48, 48, 4), np.uint8)
    image[...] = (0, 255, 0, 0)  # an invisible green
    image[:, :24] = (200, 60, 60, 255)
    events, _ = run(image, path, 2)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    opaque = np.zeros_like(image)
    opaque[...] = (200, 60, 60, 255)
    events, _ = run(opaque, path, 2)
    (red,) = [e for e in events if isinstance(e, Layer)]
    seen = layer.pixels[..., 3] > 16
    assert difference(layer.pixels[seen][:, :3], red.pixels[seen][:, :3]) <= 2


def test_wholly_transparent(tmp_path: Path) -> None:
    events, _ = run(np.zeros((20, 30, 4), np.uint8), save(tmp_path / "x.pth", compact()), 2)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    assert layer.pixels.shape == (40, 60, 4) and not layer.pixels[..., 3].any()


@pytest.mark.parametrize(("scale", "times"), [(1, 0), (1.5, 1), (2, 1), (2.5, 2), (3, 2), (4, 2), (4.5, 3), (8, 3)])
def test_a_scale_that_is_not_its_own(tmp_path: Path, scale: float, times: int) -> None:
    path = save(tmp_path / "x.pth", compact())
    image = photograph(37, 21)
    events, result = run(image, path, scale)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    assert layer.pixels.shape == (int(21 * scale + 0.5), int(37 * scale + 0.5), 4)
    assert passes(2, scale) == result.ran["passes"] == times
    assert (
        layer.info["params"] == dataclasses.asdict(Upscale(scale=scale, upscaler="x")) and layer.info["upscaler"] == "x"
    )
    assert layer.info["digital_source_type"] == "algorithmicallyEnhanced"
    if scale == 1:
        assert (layer.pixels == image).all()


def test_shrinking_band_by_band_is_shrinking_the_whole(tmp_path: Path) -> None:
    """Half of 4 x in bands against Lanczos over the whole result, and against Pillow's own."""
    path = save(tmp_path / "x.pth", rrdb())
    image = photograph(130, 210)
    full = by_model(image, path, 4, MIN_TILE)
    for scale in (3, 2, 1.5):
        banded = by_model(image, path, scale, MIN_TILE)
        size = Size(banded.shape[1], banded.shape[0])
        assert difference(banded, lanczos_rows(full, size, 0, size.height)) <= 1
        pillow = np.asarray(Image.fromarray(full[..., :3]).resize(tuple(size), Image.Resampling.LANCZOS))
        assert abs(banded[..., :3].astype(int) - pillow).mean() < 2


def test_progress_by_the_tile_and_cancel_within_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "tile_side", lambda model, free: MIN_TILE)
    path = save(tmp_path / "x.pth", compact())
    image = photograph(200, 120)
    events, result = run(image, path, 4)
    steps = [e for e in events if isinstance(e, Progress) and e.stage == "upscale"]
    total = result.ran["tiles"]
    assert [e.step for e in steps] == list(range(total + 1)) and {e.steps for e in steps} == {total}
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions) and fractions[-1] == 1

    looks = [0]

    def after_a_few() -> bool:
        looks[0] += 1
        return looks[0] > 20

    told: list[Any] = []
    with pytest.raises(Cancelled):
        Engine(DEVICE, "fp32").run(job_of(image, path, 4), told.append, after_a_few)
    assert looks[0] == 21 and not any(isinstance(e, Layer) for e in told)
    assert max(e.step for e in told if isinstance(e, Progress) and e.stage == "upscale") < total


def test_the_network_is_left_without_hooks(tmp_path: Path) -> None:
    model = load(save(tmp_path / "x.pth", compact()))
    with pytest.raises(Cancelled), model.checked(lambda: (_ for _ in ()).throw(Cancelled())):
        model(torch.rand(1, 3, 8, 8))
    assert not any(module._forward_pre_hooks for module in model.descriptor.model.modules())
    model(torch.rand(1, 3, 8, 8))


def test_memory_runs_out_then_in_smaller_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.pth", compact())
    image = photograph(300, 300)
    expected = by_model(image, path, 2, MIN_TILE)
    original = UpscalerModel.__call__

    def short(limit: int) -> Any:
        def call(self: UpscalerModel, picture: torch.Tensor) -> torch.Tensor:
            if max(picture.shape) > limit:
                raise torch.OutOfMemoryError("not enough")
            return original(self, picture)

        return call

    monkeypatch.setattr(UpscalerModel, "__call__", short(200))
    events, result = run(image, path, 2)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    assert result.ran["tile"] <= 200 and difference(layer.pixels, expected) <= 1
    monkeypatch.setattr(UpscalerModel, "__call__", short(10))
    with pytest.raises(ResourceError) as caught:
        run(image, path, 2)
    assert caught.value.code == "resource.out_of_memory" and "x" in caught.value.message


def test_a_picture_of_one_pixel(tmp_path: Path) -> None:
    for kind in ("esrgan", "compact", "swinir"):
        path = save(tmp_path / f"{kind}.pth", KINDS[kind][0]())
        events, _ = run(photograph(1, 1), path, 2)
        (layer,) = [e for e in events if isinstance(e, Layer)]
        assert layer.pixels.shape == (2, 2, 4)


def test_what_half_precision_cannot_hold_is_done_again() -> None:
    class Descriptor:
        def __init__(self) -> None:
            self.model = torch.nn.Linear(1, 1)
            self.seen: list[torch.dtype] = []

        def __call__(self, picture: torch.Tensor) -> torch.Tensor:
            self.seen.append(picture.dtype)
            return picture * (float("nan") if picture.dtype == torch.float16 else 1)

    descriptor = Descriptor()
    model = UpscalerModel("x", "x", 1, False, descriptor, CPU, torch.float16)
    assert model(torch.ones(1, 3, 2, 2)).isfinite().all()
    assert descriptor.seen == [torch.float16, torch.float32]
    assert next(descriptor.model.parameters()).dtype == torch.float16


def test_nothing_of_an_upscaler_asks_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def attempt(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("network attempt")

    monkeypatch.setattr(socket, "create_connection", attempt)
    monkeypatch.setattr(socket, "getaddrinfo", attempt)
    load(save(tmp_path / "x.pth", compact()))


def test_two_upscalers_blended(tmp_path: Path) -> None:
    one, other = save(tmp_path / "one.pth", compact()), save(tmp_path / "other.pth", rrdb(seed=3))
    image = photograph(150, 70)
    image[20:40, 30:60, 3] = 0
    job = job_of(image, one, 2.5)
    params = dataclasses.replace(job.params, second_upscaler="other", second_share=0.25)
    job = dataclasses.replace(job, params=params, second_upscaler=str(other))
    events: list[Any] = []
    result = Engine(DEVICE, "fp32").run(job, events.append, lambda: False)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    alone = [by_model(image, path, 2.5, MIN_TILE).astype(float) for path in (one, other)]
    assert abs(layer.pixels - (0.75 * alone[0] + 0.25 * alone[1])).max() <= 2
    assert result.ran["second"]["method"] == "other" and layer.alpha == "soft"
    assert "Postprocess upscaler 2: other" in layer.info["postprocessing"]
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_lanczos_over_a_model(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", compact())
    image = photograph(60, 40)
    job = job_of(image, path, 2)
    job = dataclasses.replace(job, params=dataclasses.replace(job.params, second_share=1.0))
    events: list[Any] = []
    Engine(DEVICE, "fp32").run(job, events.append, lambda: False)
    (layer,) = [e for e in events if isinstance(e, Layer)]
    assert (layer.pixels == lanczos_rows(image, Size(120, 80), 0, 80)).all()


def test_wide_pictures_get_lower_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A band of the result has a ceiling, whatever the width."""
    model = load(save(tmp_path / "x.pth", compact()))
    picture = photograph(600, 300)[..., :3]
    whole = np.concatenate(list(tiled_rows(model, picture, 256, lambda: None)))
    monkeypatch.setattr(tiles, "BAND_BYTES", 1)
    count: list[int] = []
    bands = list(tiled_rows(model, picture, 256, lambda: count.append(1)))
    assert max(len(band) for band in bands) <= MIN_TILE * model.scale
    assert len(count) == tiles.count_tiles(Size(600, 300), 256, model.scale)
    assert difference(np.concatenate(bands), whole) <= 1


def test_large_results_lie_in_mapped_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.pth", compact())
    image = photograph(60, 40)
    expected = by_model(image, path, 4, MIN_TILE)
    monkeypatch.setattr(scratch, "MAPPED", 1000)
    mapped = by_model(image, path, 4, MIN_TILE)
    assert isinstance(mapped, np.memmap) and (mapped == expected).all()


def test_a_full_disk_is_told_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MAPPED", 1000)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(ResourceError) as caught:
        run(photograph(60, 40), save(tmp_path / "x.pth", compact()), 4)
    assert caught.value.code == "resource.disk_full" and caught.value.retryable


FLAT = np.full((300, 260, 4), 128, np.uint8)
GRADIENT = np.dstack([np.tile(np.linspace(20, 230, 260), (300, 1))] * 3 + [np.full((300, 260), 255)]).astype(np.uint8)
NOISE = np.random.default_rng(5).integers(0, 256, (300, 260, 4), np.uint8)


@pytest.mark.parametrize("name", ["flat", "gradient", "photo", "noise"])
@pytest.mark.parametrize("kind", ["esrgan", "compact"])
def test_gradients_along_the_borders_of_tiles_are_those_elsewhere(tmp_path: Path, kind: str, name: str) -> None:
    """Energy of the gradient where tiles fade over that elsewhere, each against one piece: within 1 % of 1."""
    picture = {"flat": FLAT, "gradient": GRADIENT, "photo": photograph(260, 300), "noise": NOISE}[name][..., :3]
    model = load(save(tmp_path / "x.pth", KINDS[kind][0]()))
    whole = np.concatenate(list(tiled_rows(model, picture, 0, lambda: None)))
    tiled = np.concatenate(list(tiled_rows(model, picture, MIN_TILE, lambda: None)))
    border = np.zeros(whole.shape[1] - 1, bool)
    spans = tiles_along(260, MIN_TILE)
    for (_, end), (start, _) in itertools.pairwise(spans):
        middle = (start + end) // 2 * model.scale
        border[middle - FADE * model.scale // 2 : middle + FADE * model.scale // 2] = True

    def energies(made: np.ndarray) -> tuple[float, float]:
        change = (np.diff(made.astype(float), axis=1) ** 2).mean((0, 2))
        return float(change[border].mean()), float(change[~border].mean())

    (along, elsewhere), (along_whole, elsewhere_whole) = energies(tiled), energies(whole)
    if elsewhere_whole < 0.01:  # flat: what there is of it must not be more
        assert along <= along_whole + 0.01
    else:
        assert along / elsewhere == pytest.approx(along_whole / elsewhere_whole, rel=0.01)
