"""Where the engine's tests run: the processor, or IMPASTO_TEST_DEVICE, such as cuda, on a machine that has one."""

from __future__ import annotations

import os

DEVICE = os.environ.get("IMPASTO_TEST_DEVICE", "cpu")
