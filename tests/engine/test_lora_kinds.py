"""Each kind of LoRA against its formula, written out number by number."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from impasto_server.engine.lora_kinds import (
    Misfit,
    Parts,
    add_delta,
    bias_delta,
    check,
    kind_of,
    needs_weight,
    weight_delta,
)
from numpy.typing import NDArray

Array = NDArray[np.float64]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def parts(alpha: float | None = None, *, on_input: bool = False, **tensors: torch.Tensor) -> Parts:
    return Parts(tensors, alpha, on_input)


def array(tensor: torch.Tensor) -> Array:
    return tensor.double().numpy()


def same(got: torch.Tensor | None, expected: Array, shape: tuple[int, ...]) -> None:
    assert got is not None and got.shape == shape and got.dtype == torch.float32
    assert np.abs(array(got) - expected.reshape(shape)).max() <= 2e-5 * np.abs(expected).max()


LINEAR = numbers(6, 4, seed=90)
CONV = numbers(6, 4, 3, 3, seed=91)


def matmul(a: Array, b: Array) -> Array:
    out = np.zeros((a.shape[0], b.shape[1]))
    for i, j in product(range(a.shape[0]), range(b.shape[1])):
        out[i, j] = sum(a[i, k] * b[k, j] for k in range(a.shape[1]))
    return out


def tucker(core: Array, out: Array, into: Array) -> Array:
    """core [p, q, h, w], out [outputs, p], into [q, inputs]."""
    p, q, height, width = core.shape
    result = np.zeros((out.shape[0], into.shape[1], height, width))
    for o, i, y, x in np.ndindex(result.shape):
        result[o, i, y, x] = sum(core[a, b, y, x] * out[o, a] * into[b, i] for a in range(p) for b in range(q))
    return result


def test_lora() -> None:
    down, up = numbers(2, 4), numbers(6, 2)
    held = parts(1.0, down=down, up=up)
    assert kind_of(held) == "lora"
    same(weight_delta(held, LINEAR), matmul(array(up), array(down)) * 1 / 2, (6, 4))
    same(weight_delta(parts(down=down, up=up), LINEAR), matmul(array(up), array(down)), (6, 4))


def test_locon() -> None:
    down, up = numbers(2, 4, 3, 3), numbers(6, 2, 1, 1)
    expected = np.zeros((6, 4, 3, 3))
    for o, i, y, x in np.ndindex(expected.shape):
        expected[o, i, y, x] = sum(float(up[o, r, 0, 0]) * float(down[r, i, y, x]) for r in range(2)) * 4 / 2
    same(weight_delta(parts(4.0, down=down, up=up), CONV), expected, (6, 4, 3, 3))


def test_locon_in_the_tucker_form() -> None:
    down, mid, up = numbers(2, 4, 1, 1), numbers(2, 2, 3, 3), numbers(6, 2, 1, 1)
    expected = tucker(array(mid), array(up)[:, :, 0, 0], array(down)[:, :, 0, 0]) / 2
    same(weight_delta(parts(1.0, down=down, mid=mid, up=up), CONV), expected, (6, 4, 3, 3))


def test_a_linear_lora_fits_a_1_by_1_convolution() -> None:
    down, up = numbers(2, 4), numbers(6, 2)
    got = weight_delta(parts(down=down, up=up), numbers(6, 4, 1, 1))
    same(got, matmul(array(up), array(down)), (6, 4, 1, 1))


def test_loha() -> None:
    a1, b1, a2, b2 = numbers(6, 2), numbers(2, 4), numbers(6, 2, seed=1), numbers(2, 4, seed=1)
    held = parts(1.0, hada_w1_a=a1, hada_w1_b=b1, hada_w2_a=a2, hada_w2_b=b2)
    assert kind_of(held) == "loha"
    expected = matmul(array(a1), array(b1)) * matmul(array(a2), array(b2)) / 2
    same(weight_delta(held, LINEAR), expected, (6, 4))


def test_loha_in_the_tucker_form() -> None:
    t1, t2 = numbers(2, 2, 3, 3), numbers(2, 2, 3, 3, seed=1)
    a1, b1, a2, b2 = numbers(2, 6), numbers(2, 4), numbers(2, 6, seed=1), numbers(2, 4, seed=1)
    held = parts(1.0, hada_t1=t1, hada_w1_a=a1, hada_w1_b=b1, hada_t2=t2, hada_w2_a=a2, hada_w2_b=b2)
    expected = tucker(array(t1), array(a1).T, array(b1)) * tucker(array(t2), array(a2).T, array(b2)) / 2
    same(weight_delta(held, CONV), expected, (6, 4, 3, 3))


def kron(a: Array, b: Array) -> Array:
    """Of [o1, i1] and [o2, i2, ...]."""
    out = np.zeros((a.shape[0] * b.shape[0], a.shape[1] * b.shape[1], *b.shape[2:]))
    for o1, i1, o2, i2 in np.ndindex(*a.shape, *b.shape[:2]):
        out[o1 * b.shape[0] + o2, i1 * b.shape[1] + i2] = a[o1, i1] * b[o2, i2]
    return out


def test_lokr() -> None:
    w1, w2 = numbers(2, 2), numbers(3, 2, seed=1)
    held = parts(5.0, lokr_w1=w1, lokr_w2=w2)
    assert kind_of(held) == "lokr"
    same(weight_delta(held, LINEAR), kron(array(w1), array(w2)), (6, 4))  # whole factors: no rank, no alpha
    a1, b1, a2, b2 = numbers(2, 1), numbers(1, 2), numbers(3, 1), numbers(1, 2, seed=3)
    expected = kron(matmul(array(a1), array(b1)), matmul(array(a2), array(b2))) * 5 / 1
    same(weight_delta(parts(5.0, lokr_w1_a=a1, lokr_w1_b=b1, lokr_w2_a=a2, lokr_w2_b=b2), LINEAR), expected, (6, 4))


def test_lokr_on_convolutions() -> None:
    w1, w2 = numbers(2, 2), numbers(3, 2, 3, 3)
    same(weight_delta(parts(lokr_w1=w1, lokr_w2=w2), CONV), kron(array(w1), array(w2)), (6, 4, 3, 3))
    a2, b2 = numbers(3, 2), numbers(2, 2 * 9)
    expected = kron(array(w1), matmul(array(a2), array(b2)).reshape(3, 2, 3, 3)) * 3 / 2
    same(weight_delta(parts(3.0, lokr_w1=w1, lokr_w2_a=a2, lokr_w2_b=b2), CONV), expected, (6, 4, 3, 3))
    core, out, into = numbers(2, 2, 3, 3), numbers(2, 3), numbers(2, 2, seed=5)
    expected = kron(array(w1), tucker(array(core), array(out).T, array(into))) * 3 / 2
    held = parts(3.0, lokr_w1=w1, lokr_t2=core, lokr_w2_a=out, lokr_w2_b=into)
    same(weight_delta(held, CONV), expected, (6, 4, 3, 3))


def dora(weight: Array, magnitude: Array, axis: int) -> Array:
    out = weight.copy()
    for n in range(weight.shape[axis]):
        place = (slice(None),) * axis + (n,)
        out[place] *= magnitude[n] / np.sqrt((weight[place] ** 2).sum())
    return out


@pytest.mark.parametrize("weight", [LINEAR, CONV], ids=["linear", "convolution"])
@pytest.mark.parametrize("axis", [0, 1], ids=["by output", "by input"])
def test_dora(weight: torch.Tensor, axis: int) -> None:
    down, up = numbers(2, 4, *weight.shape[2:]), numbers(6, 2, *[1] * (weight.dim() - 2))
    scale = numbers(weight.shape[axis]).abs() + 0.5
    shape = [1] * weight.dim()
    shape[axis] = -1
    delta = matmul(array(up.flatten(1)), array(down.flatten(1))).reshape(weight.shape) * 3 / 2
    expected = dora(array(weight) + delta, array(scale), axis) - array(weight)
    same(
        weight_delta(parts(3.0, down=down, up=up, dora_scale=scale.view(shape)), weight), expected, tuple(weight.shape)
    )


def test_dora_as_peft_writes_it() -> None:
    """One magnitude an output channel, also where the matrix is square and the layout says nothing."""
    weight, down, up, scale = numbers(4, 4), numbers(2, 4), numbers(4, 2), numbers(4).abs() + 0.5
    delta = matmul(array(up), array(down))
    expected = dora(array(weight) + delta, array(scale), 0) - array(weight)
    for shape in ((4,), (1, 4)):
        same(weight_delta(parts(down=down, up=up, magnitude=scale.view(shape)), weight), expected, (4, 4))


def test_dora_on_loha() -> None:
    a1, b1, a2, b2 = numbers(6, 2), numbers(2, 4), numbers(6, 2, seed=1), numbers(2, 4, seed=1)
    scale = numbers(6).abs()
    held = parts(2.0, hada_w1_a=a1, hada_w1_b=b1, hada_w2_a=a2, hada_w2_b=b2, dora_scale=scale.view(6, 1))
    delta = matmul(array(a1), array(b1)) * matmul(array(a2), array(b2))
    same(weight_delta(held, LINEAR), dora(array(LINEAR) + delta, array(scale), 0) - array(LINEAR), (6, 4))


def test_whole_differences_and_norms() -> None:
    diff, bias = numbers(6, 4), numbers(6)
    for held in (parts(diff=diff, diff_b=bias), parts(3.0, diff=diff)):
        assert kind_of(held) == "diff"
        got = weight_delta(held, LINEAR)
        assert got is not None and torch.equal(got, diff)
    got = bias_delta(parts(diff=diff, diff_b=bias), numbers(6))
    assert got is not None and torch.equal(got, bias)
    held = parts(w_norm=numbers(6), b_norm=bias)
    assert kind_of(held) == "norm"
    got = weight_delta(held, numbers(6, seed=4))
    assert got is not None and torch.equal(got, numbers(6))
    got = bias_delta(held, numbers(6))
    assert got is not None and torch.equal(got, bias)
    assert weight_delta(parts(diff_b=bias), LINEAR) is None and bias_delta(parts(diff=diff), bias) is None


@pytest.mark.parametrize("weight", [LINEAR, CONV], ids=["linear", "convolution"])
def test_ia3(weight: torch.Tensor) -> None:
    rows, columns = numbers(6), numbers(1, 4)
    expected = np.stack([array(weight)[o] * float(rows[o]) for o in range(6)])
    same(weight_delta(parts(weight=rows), weight), expected, tuple(weight.shape))
    expected = np.stack([array(weight)[:, i] * float(columns[0, i]) for i in range(4)], 1)
    same(weight_delta(parts(weight=columns, on_input=True), weight), expected, tuple(weight.shape))


def test_glora() -> None:
    a1, a2, b1, b2 = numbers(2, 4), numbers(4, 2), numbers(2, 4, seed=1), numbers(6, 2)
    held = parts(1.0, a1=a1, a2=a2, b1=b1, b2=b2)
    assert kind_of(held) == "glora"
    expected = matmul(array(LINEAR), matmul(array(a2), array(a1))) + matmul(array(b2), array(b1))
    same(weight_delta(held, LINEAR), expected / 2, (6, 4))
    same(weight_delta(parts(1.0, a1=a2, a2=a1, b1=b2, b2=b1), LINEAR), expected / 2, (6, 4))  # the other spelling


def turn(blocks: Array, limit: float | None = None) -> Array:
    skew = blocks - np.swapaxes(blocks, -1, -2)
    norm = np.sqrt((skew**2).sum())
    if limit is not None and norm > limit:
        skew = skew * limit / norm
    eye = np.eye(blocks.shape[-1])
    return (eye + skew) @ np.linalg.inv(eye - skew)


@pytest.mark.parametrize("weight", [LINEAR, CONV], ids=["linear", "convolution"])
def test_oft(weight: torch.Tensor) -> None:
    blocks = numbers(3, 2, 2)
    for alpha in (None, 0.01):
        turned = turn(array(blocks), None if alpha is None else alpha * 6)
        assert np.allclose(turned @ np.swapaxes(turned, 1, 2), np.eye(2))
        expected = array(weight).copy()
        for block, row in np.ndindex(3, 2):
            expected[2 * block + row] = sum(turned[block, k, row] * array(weight)[2 * block + k] for k in range(2))
        same(weight_delta(parts(alpha, oft_blocks=blocks), weight), expected - array(weight), tuple(weight.shape))
    rotation = torch.tensor(turn(array(blocks)), dtype=torch.float32)
    given = weight_delta(parts(oft_diag=rotation), weight)
    made = weight_delta(parts(oft_blocks=blocks), weight)
    assert given is not None and made is not None and torch.allclose(given, made, atol=1e-5)
    rescaled = weight_delta(parts(oft_blocks=blocks, rescale=torch.full((6, 1), 2.0)), weight)
    assert rescaled is not None and torch.allclose(rescaled, 2 * (made + weight) - weight, atol=1e-4)


def test_boft() -> None:
    """Two levels on 8 rows in blocks of 4: the first mixes 4 rows in a row, the second every other pair of pairs."""
    blocks, weight = numbers(2, 2, 4, 4), numbers(8, 3)
    turned = turn(array(blocks))
    rows = array(weight)
    for level, places in enumerate(([[0, 2, 1, 3], [4, 6, 5, 7]], [[0, 4, 1, 5], [2, 6, 3, 7]])):
        out = np.zeros_like(rows)
        for block, taken in enumerate(places):
            out[taken] = turned[level, block] @ rows[taken]
        rows = out
    same(weight_delta(parts(oft_blocks=blocks), weight), rows - array(weight), (8, 3))


def test_adding_in_place_is_the_same() -> None:
    lora = parts(1.0, down=numbers(2, 4), up=numbers(6, 2))
    locon = parts(4.0, down=numbers(2, 4, 3, 3), up=numbers(6, 2, 1, 1))
    dora = parts(1.0, down=numbers(2, 4), up=numbers(6, 2), dora_scale=numbers(6, 1))
    ia3 = parts(weight=numbers(6))
    for held, weight in ((lora, LINEAR), (locon, CONV), (dora, LINEAR), (ia3, CONV)):
        target = torch.ones_like(weight)
        add_delta(target, weight, held, -0.5)
        delta = weight_delta(held, weight)
        assert delta is not None and torch.allclose(target, 1 - 0.5 * delta, atol=1e-5)
    wide = torch.zeros(6, 9, 3, 3)
    add_delta(wide[:, :4], CONV, locon, 1.0)
    delta = weight_delta(locon, CONV)
    assert delta is not None and torch.allclose(wide[:, :4], delta, atol=1e-5) and not wide[:, 4:].any()
    assert [needs_weight(held) for held in (lora, locon, dora, ia3)] == [False, False, True, True]


def test_what_does_not_fit_is_told_without_a_word_of_matrices() -> None:
    cases = [
        parts(down=numbers(2, 5), up=numbers(6, 2)),
        parts(down=numbers(2, 4), up=numbers(7, 2)),
        parts(down=numbers(2, 4), up=numbers(6, 3)),
        parts(1.0, down=numbers(0, 4), up=numbers(6, 0)),
        parts(diff=numbers(4, 6)),
        parts(diff=numbers(6, 4), diff_b=numbers(5)),
        parts(weight=numbers(1)),
        parts(weight=numbers(6), on_input=True),
        parts(oft_blocks=numbers(1, 2, 2)),
        parts(oft_blocks=numbers(3, 2, 3)),
        parts(lokr_w1=numbers(2, 2), lokr_w2=numbers(2, 2)),
        parts(a1=numbers(2, 5), a2=numbers(5, 2), b1=numbers(2, 5), b2=numbers(6, 2)),
        parts(down=numbers(2, 4), up=numbers(6, 2), dora_scale=numbers(5, 1)),
    ]
    for held in cases:
        with pytest.raises(Misfit, match="where"):
            check(held, (6, 4), (6,))
    with pytest.raises(Misfit, match="bias"):
        check(parts(diff_b=numbers(6)), (6, 4), None)
    check(parts(down=numbers(2, 4), up=numbers(6, 2)), (6, 4), None)


def test_incomplete_and_mixed_parts_are_no_kind() -> None:
    for held in (
        parts(down=numbers(2, 4)),
        parts(hada_w1_a=numbers(6, 2), hada_w1_b=numbers(2, 4)),
        parts(lokr_w1=numbers(2, 2), lokr_w2_a=numbers(3, 1)),
        parts(down=numbers(2, 4), up=numbers(6, 2), diff=numbers(6, 4)),
        parts(a1=numbers(2, 4), a2=numbers(4, 2)),
        parts(),
    ):
        assert kind_of(held) is None
