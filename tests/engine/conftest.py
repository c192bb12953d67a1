"""Tiny networks gain nothing from more than one thread, and on a busy machine lose much by waiting for each other.

Set before torch is imported, and without importing it: some of these tests do without torch.
"""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a busy machine the first example of a test can take as long as it likes.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
