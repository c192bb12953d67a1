"""Trains the text encoder: it learns to say what a sentence encoder says about words and captions.

    python -m starter.train_text --minutes 5          # writes starter/state/text.pt

Token vectors start from the sentence encoder's view of single words (principal components); then the whole
encoder is trained so that a linear map of its state at the end mark, and at the padding after it, points
where the teacher's sentence vector points. The UNet is trained on what it says then; the teacher (see
`starter.sources`) is not shipped.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from starter import models
from starter.compose import Scene, caption, rare_tags
from starter.data import load
from starter.sources import WORK, fetch
from starter.vocabulary import END, encode, whole_words

CHECKPOINT = WORK / "text.pt"
LENGTH = 24
END_PLACES = 16


def corpus(words: int, captions: int, seed: int = 0) -> list[str]:
    """Frequent words, labels, tags and captions as training will word them."""
    rng = np.random.default_rng(seed)
    concepts, sprites = load()
    rare = rare_tags(concepts)
    texts = [w for w, _ in sorted(whole_words().items(), key=lambda item: item[1])[:words]]
    texts += [c.label for c in concepts] + sorted({t for c in concepts for t in c.tags})
    keys = list(sprites)
    for _ in range(captions):
        first, style = keys[int(rng.integers(len(keys)))]
        kind = "pair" if rng.random() < 0.1 else "single"
        scene = Scene(first, int(rng.integers(len(concepts))), style, int(rng.integers(-1, 14)), kind)
        texts.append(caption(rng, concepts, scene, rare))
    return texts


@torch.no_grad()
def teach(texts: list[str]) -> torch.Tensor:
    """The teacher's unit sentence vectors, float [n, 384]."""
    from transformers import AutoModel, AutoTokenizer

    folder = next(fetch("minilm").rglob("model.safetensors")).parent
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = torch.empty(len(texts), 384)
    for start in range(0, len(texts), 256):
        rows = order[start : start + 256]
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=40, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        out[rows] = F.normalize((states.float() * mask).sum(1) / mask.sum(1), dim=-1)
    return out


def start_vectors(text: nn.Module, width: int, words: dict[str, int], vectors: dict[str, torch.Tensor]) -> None:
    """Sets the token vectors of known words to principal components of the teacher's vectors."""
    known = [w for w in words if w in vectors]
    table = torch.stack([vectors[w] for w in known])
    table = table - table.mean(0)
    _, _, axes = torch.linalg.svd(table, full_matrices=False)
    low = table @ axes[:width].T
    weight = text.get_input_embeddings().weight.data
    weight[torch.tensor([words[w] for w in known])] = low / low.std() * 0.05


def train(
    minutes: float,
    shape: models.Shape = models.SHAPE,
    folder: Path = WORK,
    words: int = 12000,
    captions: int = 30000,
    steps: int | None = None,
    rate: float = 1.5e-3,
) -> float:
    """Trains, saves, and returns the last cosine between pupil and teacher."""
    texts = corpus(words, captions)
    cache = folder / "teacher.pt"
    targets = torch.load(cache, weights_only=True) if cache.exists() else teach(texts)
    if len(targets) != len(texts):
        targets = teach(texts)
    models.save(cache, targets)
    ids = encode(texts)[:, :LENGTH]
    ids[:, -1] = END
    text, head = models.make_text(shape), nn.Linear(shape.text_width, 384)
    text.get_input_embeddings().weight.data.mul_(0.5)
    start_vectors(text, shape.text_width, whole_words(), dict(zip(texts, targets, strict=True)))
    optimiser = torch.optim.AdamW(
        [*text.parameters(), *head.parameters()], lr=rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    start, step, similarity = time.time(), 0, 0.0
    ends = (ids == END).int().argmax(1)
    while True:
        part = step / steps if steps else (time.time() - start) / (60 * minutes)
        if part >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))
        rows = torch.randint(len(texts), (min(256, len(texts)),))
        length = min(int(ends[rows].max()) + 2, LENGTH)
        with torch.autocast("cpu", torch.bfloat16):
            states = text(ids[rows, :length]).last_hidden_state
            first = torch.arange(len(rows)), ends[rows]
            later = (
                torch.arange(len(rows)),
                ends[rows] + (torch.rand(len(rows)) * (length - ends[rows])).long(),
            )
            said = torch.stack([head(states[first]), head(states[later])]).float()
        cosine = F.cosine_similarity(said, targets[rows], dim=-1)
        (1 - cosine).mean().backward()
        nn.utils.clip_grad_norm_(text.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step, similarity = step + 1, cosine.mean().item()
        if step % 50 == 0:
            models.log(folder / "text.jsonl", step=step, seconds=time.time() - start, cosine=similarity)
    places = text.state_dict()[
        "embeddings.position_embedding.weight"
        if "embeddings.position_embedding.weight" in text.state_dict()
        else "text_model.embeddings.position_embedding.weight"
    ]
    places[END_PLACES:] = places[END_PLACES]  # later places were never met: they mean what the last of these means
    models.save(folder / CHECKPOINT.name, {"text": text.state_dict()})
    return similarity


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=5)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    print(train(a.minutes))


if __name__ == "__main__":
    main()
