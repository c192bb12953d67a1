"""What guides a picture, two and two together: row by row as in one batch, and each of them heard."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from impasto_server.engine.jobs import ControlUnit, IPUnit, ReferenceUnit, RegionUnit
from impasto_server.engine.run import Engine

from tests.control import write_tiny_controlnet
from tests.engine.device import DEVICE
from tests.engine.test_controlnet import write_t2i
from tests.engine.test_ip_adapter import left_half
from tests.engine.test_regions import entry
from tests.engine.test_run import picture, run, text_job
from tests.ip_adapters import write_tiny_ip_adapter, write_tiny_tower
from tests.tiny import tiny_modules, write_tiny_checkpoint


class RowByRow(Engine):
    """As it runs where memory is short."""

    def _run(self, *args, **more):
        return super()._run(*args, **{**more, "sequential": True})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def checkpoints(folder):
    return {n: str(write_tiny_checkpoint(folder / f"tiny{n}.safetensors", channels=n, half=False)) for n in (4, 9)}


@pytest.fixture(scope="module")
def guides(folder):
    """Name -> what it changes of a job."""
    unet, _, _ = tiny_modules()
    control = str(write_tiny_controlnet(folder / "control.safetensors"))
    write_t2i(folder / "guide.safetensors", "full_adapter", "original")
    adapter = str(write_tiny_ip_adapter(folder / "ip.bin", unet, "plus"))
    tower = str(write_tiny_tower(folder / "tower.safetensors"))
    shown, mask = picture(64, 64), left_half(64, 64, False)

    def with_region(job):
        params = replace(job.params, regions=[entry("a deer in the snow", negative="rain")])
        unit = RegionUnit("region 1", "params.regions[0]", "a deer in the snow", "rain", 0.8, mask)
        return replace(job, params=params, regions=(unit,))

    return {
        "control": lambda job: replace(
            job, control=(*job.control, ControlUnit("1", "params.control[0]", control, shown, mode="control"))
        ),
        "t2i": lambda job: replace(
            job, control=(*job.control, ControlUnit("2", "params.control[1]", str(folder / "guide.safetensors"), shown))
        ),
        "ip": lambda job: replace(
            job, ip_adapters=(IPUnit("3", "params.ip_adapters[0]", adapter, tower, (shown,), 0.8),)
        ),
        "reference": lambda job: replace(
            job, references=(ReferenceUnit("4", "params.references[0]", shown[::-1].copy(), kind="both"),)
        ),
        "regions": with_region,
    }


@pytest.fixture(scope="module")
def engines():
    return Engine(DEVICE, "fp32"), RowByRow(DEVICE, "fp32")


NAMES = ("control", "t2i", "ip", "reference", "regions")


@pytest.fixture(scope="module")
def alone(engines, guides, checkpoints):
    """What each gives by itself, by channels of the checkpoint and name."""
    return {
        (channels, name): run(engines[0], guides[name](text_job(path, steps=2, seed=3, prompt="a cat")))[0].pixels
        for channels, path in checkpoints.items()
        for name in NAMES
    }


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(NAMES, 2)))
def test_two_are_heard_and_row_by_row_they_are_the_same(engines, guides, checkpoints, alone, channels, one, other):
    batched, by_rows = engines
    job = text_job(checkpoints[channels], steps=2, seed=3, prompt="a cat")
    both = guides[other](guides[one](job))
    together, *_ = run(batched, both)
    apart, *_ = run(by_rows, both)
    assert np.abs(together.pixels.astype(int) - apart.pixels).max() <= 1
    for name in (one, other):
        assert (together.pixels != alone[channels, name]).any()


def test_all_at_once_and_nothing_stays_behind(engines, guides, checkpoints):
    batched, by_rows = engines
    job = text_job(checkpoints[4], steps=2, seed=3, prompt="a cat")
    plain, *_ = run(batched, job)
    every = job
    for name in NAMES:
        every = guides[name](every)
    together, *_ = run(batched, every)
    apart, *_ = run(by_rows, every)
    assert np.abs(together.pixels.astype(int) - apart.pixels).max() <= 1
    again, *_ = run(batched, job)
    np.testing.assert_array_equal(again.pixels, plain.pixels)
