"""Which runtime for the kit's small networks: onnxruntime, OpenCV, LiteRT, or torch. docs/kit.md quotes it.

    python -m venv lab && lab/bin/pip install onnx opencv-python-headless ai-edge-litert
    python -m starter.kit.sources
    python benchmarks/kit.py --others lab/lib/python3.11/site-packages

For each network and runtime: the median time of a call beside onnxruntime's in the same round, and how far the outputs
are from those of the network's own runtime (LiteRT for MediaPipe's files, which it alone takes as they are), as a part
of their largest value. Then what each runtime weighs on the disk and how long its import takes. Torch runs the graph
node by node, as modules of our own would.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "starter" / "state" / "kit" / "mediapipe" / "mediapipe" / "modules"
TFLITE = {
    "face-short-range": "face_detection/face_detection_short_range.tflite",
    "face-full-range": "face_detection/face_detection_full_range_sparse.tflite",
    "face-mesh": "face_landmark/face_landmark.tflite",
    "person-segmentation": "selfie_segmentation/selfie_segmentation.tflite",
}
DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "flatbuffers", "protobuf"),
    "opencv": ("opencv-python-headless",),
    "litert": ("ai-edge-litert", "flatbuffers", "ml-dtypes", "backports.strenum"),
    "torch": ("torch",),
}
MODULE = {"onnxruntime": "onnxruntime", "opencv": "cv2", "litert": "ai_edge_litert.interpreter", "torch": "torch"}

Call = Callable[[np.ndarray], list[np.ndarray]]


def photograph(shape: list[int]) -> np.ndarray:
    """A part of a photograph in the network's size and range."""
    from PIL import Image
    from skimage import data

    face = Image.fromarray(data.astronaut()[:320, 64:384]).resize((shape[2], shape[1]), Image.Resampling.BOX)
    values = np.asarray(face, np.float32)
    if shape[3] == 4:
        return np.concatenate([values, np.ones((*values.shape[:2], 1), np.float32)], axis=2)[None]
    return values[None] if shape[1] == 150 else values[None] / 255


# ---- runtimes


def by_onnxruntime(path: Path, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: list(session.run(None, {name: x}))


def by_opencv(path: Path, threads: int) -> Call:
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(str(path))
    names = net.getUnconnectedOutLayersNames()

    def call(x: np.ndarray) -> list[np.ndarray]:
        net.setInput(x)
        return [np.array(v) for v in net.forward(names)]

    return call


def by_litert(path: Path, threads: int) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(model_path=str(MODULES / TFLITE[path.stem]), num_threads=threads)
    net.allocate_tensors()
    source = net.get_input_details()[0]["index"]
    outputs = [o["index"] for o in net.get_output_details()]

    def call(x: np.ndarray) -> list[np.ndarray]:
        net.set_tensor(source, x)
        net.invoke()
        return [net.get_tensor(i) for i in outputs]

    return call


def by_torch(path: Path, threads: int) -> Call:
    import onnx
    import torch
    from onnx import numpy_helper

    torch.set_num_threads(threads)
    graph = onnx.load(str(path)).graph
    fixed = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    nodes = []
    for node in graph.node:
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if all(name in fixed for name in node.input):  # as a loader would: once
            fixed.update(zip(node.output, _torch(node.op_type, [fixed[n] for n in node.input], options), strict=True))
        else:
            nodes.append((node.op_type, list(node.input), list(node.output), options))
    source, outputs = graph.input[0].name, [o.name for o in graph.output]

    @torch.inference_mode()
    def call(x: np.ndarray) -> list[np.ndarray]:
        values = {**fixed, source: torch.from_numpy(x)}
        for kind, inputs, names, options in nodes:
            found = _torch(kind, [values.get(n) for n in inputs], options)
            values.update(zip(names, found, strict=True))
        return [values[name].numpy() for name in outputs]

    return call


def _torch(kind: str, v: list[Any], o: dict[str, Any]) -> list[Any]:
    """One node of an ONNX graph, for those that occur in the kit."""
    import torch
    from torch.nn import functional as F

    simple: dict[str, Callable[..., Any]] = {
        "Identity": lambda x: x,
        "Relu": F.relu,
        "Sigmoid": torch.sigmoid,
        "HardSwish": F.hardswish,
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Div": torch.div,
        "MatMul": torch.matmul,
        "Equal": torch.eq,
        "Shape": lambda x: torch.tensor(x.shape),
        "Cast": lambda x: x.to({1: torch.float32, 7: torch.int64}[o["to"]]),
        "Clip": lambda x, low, high: x.clamp(float(low), float(high)),
        "PRelu": lambda x, slope: F.prelu(x, slope.flatten()),
        "Transpose": lambda x: x.permute(*o["perm"]),
        "Reshape": lambda x, shape: x.reshape(shape.tolist()),
        "Gemm": lambda x, weight, bias: F.linear(x, weight, bias),
        "ReduceMean": lambda x: x.mean(o["axes"], keepdim=bool(o["keepdims"])),
        "DepthToSpace": lambda x: _depth_to_space(x, o["blocksize"]),
        "Concat": lambda *x: torch.cat(x, o["axis"]),
        "ConvTranspose": lambda x, weight, bias: F.conv_transpose2d(x, weight, bias, stride=o["strides"]),
    }
    if kind in simple:
        return [simple[kind](*v)]
    if kind == "Pad":
        flat = v[1].tolist()
        half = len(flat) // 2
        pads = [p for i in reversed(range(half)) for p in (flat[i], flat[half + i])]
        return [F.pad(v[0], pads)]
    if kind in ("Conv", "MaxPool", "AveragePool"):
        x, (top, left, bottom, right) = v[0], o.get("pads", [0, 0, 0, 0])
        if any((top, left, bottom, right)):
            x = F.pad(x, (left, right, top, bottom), value=-torch.inf if kind == "MaxPool" else 0)
        if kind == "Conv":
            bias = v[2] if len(v) > 2 else None
            dilations = o.get("dilations", [1, 1])
            return [F.conv2d(x, v[1], bias, o.get("strides", [1, 1]), 0, dilations, o.get("group", 1))]
        pool = F.max_pool2d if kind == "MaxPool" else F.avg_pool2d
        return [pool(x, o["kernel_shape"], o.get("strides", [1, 1]))]
    if kind == "Resize":
        way = o["coordinate_transformation_mode"].decode()
        size = v[3].tolist()[2:]
        if way == "asymmetric":
            raise NotImplementedError("torch has no bilinear resize without half pixels")
        return [F.interpolate(v[0], size, mode="bilinear", align_corners=way == "align_corners")]
    if kind == "Slice":
        x, starts, ends, axes = v[0], v[1].tolist(), v[2].tolist(), v[3].tolist() if len(v) > 3 else None
        for axis, start, end in zip(axes or range(len(starts)), starts, ends, strict=True):
            x = x[(slice(None),) * axis + (slice(start, end),)]
        return [x]
    if kind == "Split":
        return list(torch.split(v[0], o["split"] if "split" in o else v[1].tolist(), o.get("axis", 0)))
    raise NotImplementedError(kind)


def _depth_to_space(x: Any, block: int) -> Any:
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


RUNTIMES: dict[str, Callable[[Path, int], Call]] = {
    "onnxruntime": by_onnxruntime,
    "opencv": by_opencv,
    "litert": by_litert,
    "torch": by_torch,
}


# ---- measuring


def distance(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The largest difference of any output, as a part of its largest value; outputs are paired by their shapes."""
    worst = 0.0
    for value in wanted:
        same = [f for f in found if f.size == value.size]
        if not same:
            return float("nan")
        scale = max(float(np.abs(value).max()), 1e-6)
        worst = max(worst, min(float(np.abs(f.reshape(value.shape) - value).max()) for f in same) / scale)
    return worst


def measure(path: Path, shape: list[int], threads: int, rounds: int) -> dict[str, Any]:
    x, calls, told = photograph(shape), {}, {}
    for name, make in RUNTIMES.items():
        try:
            call = make(path, threads)
            calls[name], told[name] = call, {"outputs": call(x)}
        except Exception as e:
            told[name] = {"fails": f"{type(e).__name__}: {str(e).strip().splitlines()[0][:80] if str(e) else ''}"}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call(x)
            times[name].append(time.perf_counter() - began)
    reference = "litert" if "litert" in calls else "onnxruntime"
    wanted = told[reference]["outputs"]
    for name, taken in times.items():
        ratio = np.median(np.array(taken) / np.array(times["onnxruntime"]))
        off = distance(told[name].pop("outputs"), wanted)
        told[name] |= {"ms": 1000 * float(np.median(taken)), "times_onnxruntime": float(ratio), "off": off}
    return {"against": reference, "runtimes": told}


def weight(runtime: str) -> float:
    """MB on the disk, with what it alone brings along."""
    size = 0
    for name in DISTRIBUTIONS[runtime]:
        for file in importlib.metadata.files(name) or ():
            where = Path(str(file.locate()))
            size += where.stat().st_size if where.is_file() else 0
    return size / 1e6


def import_seconds(runtime: str, others: str) -> float:
    code = f"import sys, time; sys.path.append({others!r}); import numpy; t = time.perf_counter(); "
    code += f"import {MODULE[runtime]}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--others", required=True, help="site-packages with onnx, OpenCV and LiteRT")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--work", type=Path, default=ROOT / "build" / "kit")
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    sys.path.append(a.others)
    sys.path[:0] = [str(ROOT), str(ROOT / "server"), str(ROOT / "protocol")]
    from impasto_server.engine.kit.runtime import installed, known

    result: dict[str, Any] = {"threads": a.threads, "networks": {}, "runtimes": {}}
    print(f"{'network':<22}" + "".join(f"{r:>34}" for r in RUNTIMES))
    for name, entry in known().items():
        if not entry["file"].endswith(".onnx") or "sha256" not in entry:
            continue
        (shape,) = entry["inputs"].values()
        found = measure(installed(name, a.work), shape, a.threads, a.rounds)
        result["networks"][name] = found
        cells = []
        for told in found["runtimes"].values():
            if "fails" in told:
                cells.append(told["fails"][:32])
            else:
                cells.append(f"{told['ms']:.1f} ms x{told['times_onnxruntime']:.2f} off {told['off']:.0e}")
        print(f"{name:<22}" + "".join(f"{c:>34}" for c in cells))
    for name in RUNTIMES:
        result["runtimes"][name] = {"mb": weight(name), "import_s": import_seconds(name, a.others)}
        print(f"{name:<14}{weight(name):7.0f} MB, import {result['runtimes'][name]['import_s']:.2f} s")
    if a.json:
        a.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
