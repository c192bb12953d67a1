"""Records what hints with weights are beside, so that the tests need neither the weights nor the programs.

    impasto models pull hed pose
    python -m venv lab                     # with torch, and what controlnet_aux imports
    lab/bin/pip install --no-deps controlnet_aux==0.0.10
    lab/bin/pip install opencv-python-headless==4.11.0.86 einops matplotlib safetensors scikit-image==0.26.0
    lab/bin/python -m tests.hints.make_vectors HAND.png     # writes tests/hints/vectors.npz

HAND.png is any picture of a raised hand; the recorded one is Fluent emoji's 270b-1f3fc (npm @lobehub/fluent-emoji-3d
1.1.0, MIT) at 256 x 256 in the middle of 400 x 400 pixels of grey 200.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from impasto_server.engine.kit.hands import detect_hands
from impasto_server.engine.kit.poses import find_pose
from impasto_server.engine.kit.runtime import Kit, installed
from PIL import Image
from skimage import data

from tests.hints.networks import random_state
from tests.hints.recorded import VECTORS, RecordingKit


@functools.cache
def folder() -> Path:
    spec = find_spec("controlnet_aux")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def aux(part: str) -> Any:
    """A module of controlnet_aux without the packages above it, which import more than these need."""
    here = folder()
    for name in ("controlnet_aux", "controlnet_aux.open_pose"):
        package = types.ModuleType(name)
        package.__path__ = [str(here.joinpath(*name.split(".")[1:]))]
        sys.modules.setdefault(name, package)
    return importlib.import_module(f"controlnet_aux.{part}")


def poses(hand: Path) -> dict[str, np.ndarray]:
    kit = RecordingKit("astronaut")
    pose = find_pose(kit, data.astronaut(), hands=True, face=True)
    (person,) = pose.people
    assert person.body is not None
    kit.said["astronaut body"] = person.body
    other = RecordingKit("hand")
    (found,) = detect_hands(other, np.asarray(Image.open(hand).convert("RGB")))
    other.said["hand joints"] = found.joints
    util, body = aux("open_pose.util"), aux("open_pose.body")
    drawn = util.draw_bodypose(
        np.zeros((512, 512, 3), np.uint8),
        [body.Keypoint(x / 512, y / 512) if there else None for x, y, there in person.body.tolist()],
    )
    return {**kit.said, **other.said, "drawn body": np.packbits(drawn.any(2)), "drawn colors": drawn[::8, ::8]}


def hed() -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    module = aux("hed")
    found = {}
    picture = data.astronaut()[:192, 128:320]
    for name, state in (
        ("random", random_state(module.ControlNetHED_Apache2())),
        ("pulled", {k: v.float() for k, v in load_file(installed("hed", Kit().folder)).items()}),
    ):
        network = module.ControlNetHED_Apache2()
        network.load_state_dict(state)
        detector = module.HEDdetector(network.eval())
        for kind, how in (("soft", {}), ("safe", {"safe": True}), ("scribble", {"scribble": True})):
            whole = detector(picture, 192, 192, output_type="np", **how)[..., 0]
            found[f"hed {name} {kind}"] = whole
    return found


def halves(network: Any) -> Any:
    """The network in eval mode, with random numbers that half precision holds."""
    state = random_state(network, gain=0.8)
    network.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in state.items()})
    return network.eval()


def lines() -> dict[str, np.ndarray]:
    norm = functools.partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
    drawing = halves(aux("lineart").Generator(3, 1, 3))
    anime = halves(aux("lineart_anime").UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False))
    return {
        "lineart": drawing(image(64, 96, seed=1))[0, 0].numpy(),
        "lineart_anime": anime(image(256, 256, seed=2) * 2 - 1)[0, 0, ::4, ::4].numpy(),
    }


def normals() -> dict[str, np.ndarray]:
    part = folder() / "normalbae" / "nets"
    sys.path.insert(0, str(part / "submodules" / "efficientnet_repo"))
    for name, place in (("bae", part), ("bae.submodules", part / "submodules")):
        sys.modules[name] = package = types.ModuleType(name)
        package.__path__ = [str(place)]
    how = types.SimpleNamespace(
        mode="client", architecture="BN", pretrained="scannet", sampling_ratio=0.4, importance_ratio=0.7
    )
    network = halves(importlib.import_module("bae.NNET").NNET(how))
    return {"normal_bae": network(image(64, 64, seed=3) * 4 - 2)[0][-1][0].numpy()}


def image(height: int, width: int, seed: int) -> torch.Tensor:
    """[1, 3, height, width] in 0..1, the same wherever it is made."""
    return torch.from_numpy(np.random.default_rng(seed).random((1, 3, height, width), np.float32))


def main() -> None:
    with torch.inference_mode():
        found = {**poses(Path(sys.argv[1])), **hed(), **lines(), **normals()}
    np.savez_compressed(VECTORS, **found)
    print(len(found), "arrays,", VECTORS.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
