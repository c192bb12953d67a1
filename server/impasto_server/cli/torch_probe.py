"""What torch finds on this computer, asked in a process of its own: a broken driver may hang or end it.

`python -m impasto_server.cli.torch_probe` prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ["probe"]

PATIENCE = 180.0
"""Seconds; the first import of a large torch from a slow disk takes its time."""


def probe() -> dict[str, Any]:
    """The facts of `facts()`, or {"error": why there are none, in a sentence}."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name], capture_output=True, text=True, errors="replace", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {"error": f"torch did not answer within {PATIENCE:g} s"}
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": f"torch ended the process ({done.returncode})" + (f": {lines[-1]}" if lines else "")}
    return told if isinstance(told, dict) else {"error": "torch said something else than facts"}


def facts() -> dict[str, Any]:
    """Version, build, threads, the cards with their memory in bytes, and for which cards the build has code."""
    try:
        import torch
    except ModuleNotFoundError as e:
        missing = e.name == "torch"
        return {"missing": True, "error": "torch is not installed"} if missing else {"error": f"import torch: {e}"}
    except Exception as e:  # a damaged installation fails in many ways; each is told
        return {"error": f"import torch: {type(e).__name__}: {e}"}
    told: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": getattr(torch.version, "hip", None),
        "threads": torch.get_num_threads(),
        "arch_list": [],
        "cards": [],
        "mps": bool(torch.backends.mps.is_available()),
    }
    try:
        if torch.cuda.is_available():
            told["arch_list"] = torch.cuda.get_arch_list()
            for index in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(index)
                capability = list(torch.cuda.get_device_capability(index))
                name = torch.cuda.get_device_name(index)
                told["cards"].append({"name": name, "capability": capability, "free": free, "total": total})
        elif getattr(torch, "xpu", None) is not None and torch.xpu.is_available():
            for index in range(torch.xpu.device_count()):
                properties = torch.xpu.get_device_properties(index)
                told["cards"].append({"name": properties.name, "total": properties.total_memory})
    except Exception as e:  # what a broken driver raises has many types
        told["card_error"] = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
    return told


if __name__ == "__main__":
    print(json.dumps(facts()))
