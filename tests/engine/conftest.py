"""Tiny networks gain nothing from more than one thread, and on a busy machine lose much by waiting for each other.

Set before torch is imported, and without importing it: some of these tests do without torch.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
