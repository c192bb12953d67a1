"""Pictures that are drawn here, so that no network is needed."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict

import pytest
from PIL import Image, ImageDraw

from starter import data
from starter.data import Concept

LABELS = (
    "red ball",
    "blue box",
    "green tree",
    "grey cat",
    "yellow sun",
    "pink pig",
    "black hat",
    "white egg",
    "brown dog",
    "orange fish",
    "teal cup",
)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    path = tmp_path / "sprites.zip"
    concepts = [
        Concept(str(i), label, tuple(label.split()), 0, 0, i % 2 == 0, ("thing",) if i == 2 else ())
        for i, label in enumerate(LABELS)
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("concepts.json", json.dumps([asdict(c) for c in concepts]))
        for i, concept in enumerate(concepts):
            for style in data.STYLES:
                sprite = Image.new("RGBA", (data.SIZE, data.SIZE))
                ImageDraw.Draw(sprite).ellipse((10, 10, 110, 110), (20 * i, 255 - 20 * i, 90, 255))
                out = io.BytesIO()
                sprite.save(out, "WEBP")
                archive.writestr(f"{style}/{concept.code}.webp", out.getvalue())
    monkeypatch.setattr(data, "ARCHIVE", path)
    data.load.cache_clear()
    yield data.load()
    data.load.cache_clear()
