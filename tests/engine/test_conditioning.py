"""Which entries count, and how their outputs are joined."""

from __future__ import annotations

import torch
from impasto_server.engine.conditioning import Conditioning, active, blend_entries

TOKENS = torch.zeros(1, 77, 8)


def entry(**kwargs):
    return Conditioning(TOKENS, **kwargs)


def test_range_of_steps():
    early, late, always = entry(end=0.5), entry(start=0.5), entry()
    entries = (early, late, always)
    assert active(entries, 0.0) == (early, always)
    assert active(entries, 0.5) == (late, always)
    assert active(entries, 1.0) == (late, always)


def test_one_entry_passes_unchanged():
    out = torch.randn(2, 4, 3, 3)
    assert blend_entries((entry(weight=0.3),), [out]) is out


def test_regions_take_their_place():
    left = torch.zeros(1, 1, 4, 4)
    left[..., :2] = 1
    a, b = torch.full((2, 4, 4, 4), 1.0), torch.full((2, 4, 4, 4), 5.0)
    out = blend_entries((entry(mask=left), entry(mask=1 - left)), [a, b])
    assert (out[..., :2] == 1).all() and (out[..., 2:] == 5).all()


def test_weights_count_against_each_other_and_empty_places_stay_finite():
    left = torch.zeros(1, 1, 4, 4)
    left[..., :2] = 1
    a, b = torch.full((1, 4, 4, 4), 1.0), torch.full((1, 4, 4, 4), 5.0)
    out = blend_entries((entry(mask=left, weight=3.0), entry(mask=left, weight=1.0)), [a, b])
    assert (out[..., :2] == 2).all() and (out[..., 2:] == 0).all()
