"""The procedures as a script calls them, in a real GIMP without a display: the real server, an engine that pretends."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from impasto_server.engine.modes import Upscale

from tests.gimp.conftest import Painter
from tests.krita import stub

pytestmark = pytest.mark.gimp

WIDTH, HEIGHT = 256, 192
X, Y, W, H = 60, 40, 64, 48
"""The selection of most tests."""


def params_of(painter: Painter) -> dict[str, Any]:
    params: dict[str, Any] = json.loads(str(painter.received()["params"]))
    return params


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("rgb", "U8_NON_LINEAR"),
        ("rgb", "U8_LINEAR"),
        ("rgb", "U16_NON_LINEAR"),
        ("rgb", "FLOAT_LINEAR"),
        ("rgb", "HALF_NON_LINEAR"),
        ("grey", "U8_NON_LINEAR"),
        ("grey", "U16_LINEAR"),
        ("grey", "FLOAT_NON_LINEAR"),
        ("indexed", "U8_NON_LINEAR"),
    ],
    ids=lambda value: value.lower(),
)
def test_inpaint_gives_one_layer_on_every_type_of_image(painter: Painter, kind: str, precision: str) -> None:
    """The layer has the image's own type, lies at the selection, and everything outside of it is as it was."""
    names, where, image_type, base, same = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT}, {kind!r}, {precision!r})\nselect(image, {X}, {Y}, {W}, {H})"
        + """
old = raw(painting(image))
dump("before", seen_exactly(image))
made, = layers_of(call("inpaint", image, prompt="a boat"))
dump("after", seen_exactly(image))
dump("seen", seen(image))
dump("layer", read(made))
types = [made.type().value_nick, image.get_base_type().value_nick]
result = [tree(image), place(made), *types, raw(painting(image)) == old]
"""
    )
    assert names == ["Impasto: a boat", "painting"] and same
    wanted = {"rgb": "rgba-image", "grey": "graya-image", "indexed": "indexeda-image"}[kind]
    assert image_type == wanted and base == {"grey": "gray"}.get(kind, kind)
    x, y, w, h = where
    assert x <= X and y <= Y and x + w >= X + W and y + h >= Y + H
    layer = painter.picture("layer", h, w)
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[y : y + h, x : x + w] = layer[..., 3]
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[Y : Y + H, X : X + W] = True
    assert (alpha[inside] == 255).all() and not alpha[~inside].any()
    before = painter.picture("before", HEIGHT, WIDTH, 16)
    after = painter.picture("after", HEIGHT, WIDTH, 16)
    if (kind, precision) == ("grey", "FLOAT_NON_LINEAR"):
        # GIMP itself rounds grey pixels of 32 bit on the way through any layer; a pixel of 16 bit would not change.
        assert abs(before.view(np.float32) - after.view(np.float32))[~inside].max() <= 2**-18
    else:
        bad = (before != after).any(2) & ~inside
        assert not bad.any(), np.argwhere(bad)[:5]
    color = painter.picture("seen", HEIGHT, WIDTH)[Y + 5, X + 5].astype(int)
    if kind == "rgb":
        # A linear image of 8 bit has few steps where it is dark.
        assert abs(color[:3] - stub.COLOR).max() <= (3 if precision == "U8_LINEAR" else 1)
    elif kind == "grey":
        assert color[0] == color[1] == color[2]
    sent = painter.received()
    assert sent["mask"].sum() == 255 * W * H
    if kind == "rgb" and precision != "U8_LINEAR":
        bx, by, bw, bh = sent["box"]
        yy, xx = np.mgrid[by : by + bh, bx : bx + bw]
        assert abs(sent["image"][..., 0].astype(int) - xx).max() <= 1
        assert abs(sent["image"][..., 1].astype(int) - yy).max() <= 1


def test_a_profile_is_kept_and_what_is_sent_is_srgb(painter: Painter) -> None:
    kept, seen = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})\nselect(image, {X}, {Y}, {W}, {H})"
        + """
profile, intent = Gimp.ColorProfile.new_rgb_adobe(), Gimp.ColorRenderingIntent.RELATIVE_COLORIMETRIC
image.convert_color_profile(profile, intent, False)
made, = layers_of(call("inpaint", image, prompt="adobe"))
rectangle = Gegl.Rectangle.new(70, 50, 1, 1)
layer = Gimp.Layer.new_from_visible(image, image, "seen")
color = list(layer.get_buffer().get(rectangle, 1.0, RGBA, Gegl.AbyssPolicy.NONE))
result = [image.get_color_profile().get_label(), color]
layer.delete()
"""
    )
    assert "Adobe" in kept or "1998" in kept
    assert abs(np.array(seen[:3]) - stub.COLOR).max() <= 2
    sent = painter.received()
    bx, by, _, _ = sent["box"]
    pixel = sent["image"][Y + 10 - by, X + 10 - bx].astype(int)
    assert abs(pixel[:3] - [X + 10, Y + 10, X + Y + 20]).max() <= 3


def test_a_soft_selection_arrives_as_it_is_and_gives_a_soft_layer(painter: Painter) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:70, 20:220] = np.arange(200)
    path = painter.save("mask", mask)
    where = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})\nselect_softly(image, open({path!r}, 'rb').read())"
        + """
made, = layers_of(call("inpaint", image, prompt="fog"))
dump("layer", read(made))
result = place(made)
"""
    )
    x, y, w, h = where
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[y : y + h, x : x + w] = painter.picture("layer", h, w)[..., 3]
    assert (alpha == mask).all()
    sent = painter.received()
    bx, by, bw, bh = sent["box"]
    assert (sent["mask"] == mask[by : by + bh, bx : bx + bw]).all()


def test_groups_offsets_and_masks(painter: Painter) -> None:
    """What is seen is sent, wherever the layers lie; the result is on top, and nothing else changes."""
    names, selected = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})"
        + f"""
group = Gimp.GroupLayer.new(image, "group")
image.insert_layer(group, None, 0)
part = new_layer(image, "part", 100, 80, 50, 30, parent=group)
select(image, 60, 40, 40, 40)
part.add_mask(part.create_mask(Gimp.AddMaskType.SELECTION))
part.set_edit_mask(False)
select(image, {X}, {Y}, {W}, {H})
image.set_selected_layers([part])
layers_of(call("inpaint", image, prompt="over"))
result = [tree(image), [l.get_name() for l in image.get_selected_layers()]]
"""
    )
    assert names == ["Impasto: over", ["group", ["part"]], "painting"]
    assert selected == ["part"]
    sent = painter.received()
    bx, by, _, _ = sent["box"]
    assert sent["image"][50 - by, 70 - bx].tolist() == [220, 20, 30, 255]
    assert sent["image"][85 - by, 70 - bx].tolist() == [70, 85, 155, 255]  # behind the mask


def test_a_sketch_becomes_a_layer_just_above_it(painter: Painter) -> None:
    names, same, recipe, flags = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})"
        + """
group = Gimp.GroupLayer.new(image, "group")
image.insert_layer(group, None, 0)
sketch = new_layer(image, "sketch", 50, 40, 40, 30, parent=group)
varnish = new_layer(image, "varnish", 10, 10, 0, 0, parent=group)
old = raw(sketch)
made, = layers_of(call("sketch", image, [sketch], prompt="an apple", seed=99))
parasite = made.get_parasite("impasto-recipe")
result = [tree(image), raw(sketch) == old, bytes(parasite.get_data()).decode(), parasite.is_persistent()]
"""
    )
    assert names == [["group", ["varnish", "Impasto: an apple", "sketch"]], "painting"]
    assert same and flags
    kept = json.loads(recipe)
    assert kept["mode"] == "sketch" and kept["params"]["prompt"] == "an apple" and kept["seed"] == 99
    sent = painter.received()
    assert str(sent["mode"]) == "sketch" and sent["backdrop"].size == 0
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[30:70, 40:90] = True
    assert (sent["image"][drawn] == (220, 20, 30, 255)).all() and not sent["image"][~drawn][:, 3].any()


def test_a_sketch_with_a_mask_a_selection_and_the_document_behind_it(painter: Painter) -> None:
    where = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})"
        + """
sketch = new_layer(image, "sketch", 50, 40, 40, 30)
select(image, 50, 30, 20, 40)
sketch.add_mask(sketch.create_mask(Gimp.AddMaskType.SELECTION))
sketch.set_edit_mask(False)
select(image, 32, 20, 80, 60)
made, = layers_of(call("sketch", image, [sketch], prompt="masked", background="document"))
result = place(made)
"""
    )
    sent = painter.received()
    assert where == sent["box"].tolist() == [32, 20, 80, 60]
    drawn = np.zeros((60, 80), bool)
    drawn[10:50, 18:38] = True
    assert (sent["image"][drawn] == (220, 20, 30, 255)).all() and not sent["image"][~drawn][:, 3].any()
    yy, xx = np.mgrid[20:80, 32:112]
    assert (sent["backdrop"][..., 0][~drawn] == xx[~drawn]).all()
    assert (sent["backdrop"][..., 0][drawn] == 220).all() and (sent["backdrop"][..., 1][~drawn] == yy[~drawn]).all()


def test_upscale_opens_a_new_image_and_leaves_the_old_one_alone(painter: Painter) -> None:
    status, new, same, names = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})"
        + """
image.set_resolution(144, 72)
select(image, 10, 10, 30, 20)
old = raw(painting(image))
answer = call("upscale", image, scale=3.0)
larger = answer[1].index(1)
resolution = larger.get_resolution()
dump("larger", seen(larger))
dump("small", seen(image))
result = [answer[0], [larger.get_width(), larger.get_height(), resolution.xresolution, resolution.yresolution,
          larger.get_precision().value_nick, tree(larger), larger.is_dirty()], raw(painting(image)) == old, tree(image)]
"""
    )
    assert status == "success" and same and names == ["painting"]
    assert new == [3 * WIDTH, 3 * HEIGHT, 144.0, 72.0, "u8-non-linear", ["Upscaled"], True]
    small = painter.picture("small", HEIGHT, WIDTH)
    assert (painter.picture("larger", 3 * HEIGHT, 3 * WIDTH) == small.repeat(3, 0).repeat(3, 1)).all()
    assert params_of(painter) == asdict(Upscale(scale=3.0))


@pytest.mark.parametrize("into", ["resize", "copy"])
def test_upscale_scales_all_layers_and_adds_the_picture(painter: Painter, into: str) -> None:
    status, given, same, size, names, kept, selected = painter.run(
        f"image, into = new_image({WIDTH}, {HEIGHT}), {into!r}"
        + """
group = Gimp.GroupLayer.new(image, "group")
image.insert_layer(group, None, 0)
new_layer(image, "inside", 20, 10, 30, 40, group)
image.set_resolution(144, 72)
select(image, 10, 10, 30, 20)
answer = call("upscale", image, drawables=[painting(image)], scale=2.0, source="layer", into=into)
larger = answer[1].index(1)
resolution = larger.get_resolution()
bounds = Gimp.Selection.bounds(larger)
result = [answer[0], larger.get_id() == image.get_id(), [image.get_width(), image.get_height()],
          [larger.get_width(), larger.get_height(), resolution.xresolution, resolution.yresolution], tree(larger),
          place(larger.get_layers()[1].get_children()[0]), [bounds.x1, bounds.y1, bounds.x2, bounds.y2]]
"""
    )
    assert status == "success" and given == (into == "resize")
    assert same == ([2 * WIDTH, 2 * HEIGHT] if given else [WIDTH, HEIGHT]) and size == [
        2 * WIDTH,
        2 * HEIGHT,
        144.0,
        72.0,
    ]
    assert names == ["Upscaled", ["group", ["inside"]], "painting"] and kept == [60, 80, 40, 20]
    assert max(abs(one - other) for one, other in zip(selected, (20, 20, 80, 60), strict=True)) <= 1
    assert "into" not in params_of(painter)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("source='selection'", "Select a region first"),
        ("into='smaller'", "into"),
        ("into='copy', width=90000", "limit"),
    ],
)
def test_what_cannot_be_upscaled_is_told(painter: Painter, arguments: str, sentence: str) -> None:
    status, message, size = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})\nanswer = call('upscale', image, {arguments})\n"
        "result = [answer[0], answer[2], [image.get_width(), image.get_height()]]"
    )
    assert status == "calling-error" and sentence in message and size == [WIDTH, HEIGHT]


def test_only_what_was_asked_for_is_sent(painter: Painter) -> None:
    """The arguments' defaults are left to the server, numbers may be automatic, and settings name the rest."""
    painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})\nselect(image, {X}, {Y}, {W}, {H})"
        + """
answer = call("inpaint", image, prompt="p", negative_prompt="n", seed=4294967295.0, steps=33, feather=12, grow=-1.0,
              exact=True, sampler="heun", settings='{"cfg": 3.5, "blend": "auto"}')
assert answer[0] == "success", answer[2]
"""
    )
    params = params_of(painter)
    wanted = {"prompt": "p", "negative_prompt": "n", "seed": 2**32 - 1, "steps": 33, "feather": 12, "grow": "auto"}
    wanted.update({"exact": True, "sampler": "heun", "cfg": 3.5, "blend": "auto", "strength": 1.0})
    assert {key: params[key] for key in wanted} == wanted


def test_a_layer_is_made_again_from_its_recipe_after_reopening(painter: Painter) -> None:
    """The same seed, the same mask, and what lies below as it is now; the layer itself is not seen."""
    names, seed = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})\nselect(image, {X}, {Y}, {W}, {H})"
        + """
made, = layers_of(call("inpaint", image, prompt="first", steps=9))
Gimp.Selection.none(image)
path = FILES + "/kept.xcf"
Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, image, Gio.File.new_for_path(path), None)
image.delete()
image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(path))
layer = image.get_layers()[0]
made, = layers_of(call("again", image, [layer]))
import json
recipe = json.loads(bytes(made.get_parasite("impasto-recipe").get_data()))
result = [tree(image), recipe["seed"]]
"""
    )
    assert names == ["Impasto: first #1", "Impasto: first", "painting"]
    assert seed == 4711
    sent = painter.received()
    bx, by, _, _ = sent["box"]
    assert sent["mask"].sum() == 255 * W * H and json.loads(str(sent["params"]))["seed"] == 4711
    assert sent["image"][Y + 10 - by, X + 10 - bx].tolist() == [X + 10, Y + 10, X + Y + 20, 255]


def test_a_sketch_is_made_again_with_a_new_seed(painter: Painter) -> None:
    names, message = painter.run(
        f"image = new_image({WIDTH}, {HEIGHT})"
        + """
sketch = new_layer(image, "sketch", 50, 40, 40, 30)
first, = layers_of(call("sketch", image, [sketch], prompt="twice", seed=5))
layers_of(call("again", image, [first], new_seed=True))
names = tree(image)
image.remove_layer(sketch)
result = [names, call("again", image, [first])[2]]
"""
    )
    assert names == ["Impasto: twice #1", "Impasto: twice", "sketch", "painting"]
    assert params_of(painter)["seed"] == -1 and params_of(painter)["prompt"] == "twice"
    assert "sketch of this layer is gone" in message
