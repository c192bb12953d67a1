"""Where the engine's tests run: the processor, or IMPASTO_TEST_DEVICE, such as cuda, on a machine that has one.

On NVIDIA cards set NVIDIA_TF32_OVERRIDE=0 and CUBLAS_WORKSPACE_CONFIG=:4096:8 too: some tests compare a batch with its
pictures alone, to one step of 255.
"""

from __future__ import annotations

import os

DEVICE = os.environ.get("IMPASTO_TEST_DEVICE", "cpu")
