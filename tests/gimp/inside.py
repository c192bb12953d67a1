# ruff: noqa: F821
# Runs inside GIMP, in the namespace of the test code (see conftest.py): what the tests use to look and to act.
import os

from gi.repository import Gegl, Gimp, Gio, GObject  # noqa: F401  for the tests

TYPES = {
    "rgb": (Gimp.ImageBaseType.RGB, Gimp.ImageType.RGBA_IMAGE),
    "grey": (Gimp.ImageBaseType.GRAY, Gimp.ImageType.GRAYA_IMAGE),
}
RGBA = "R'G'B'A u8"


def new_image(width=256, height=192, kind="rgb", precision="U8_NON_LINEAR"):
    """An image with one layer that tells every pixel apart; in a window where GIMP has windows."""
    base, layer_type = TYPES["rgb" if kind == "indexed" else kind]
    image = Gimp.Image.new_with_precision(width, height, base, getattr(Gimp.Precision, precision))
    layer = Gimp.Layer.new(image, "painting", width, height, layer_type, 100, Gimp.LayerMode.NORMAL)
    image.insert_layer(layer, None, 0)
    data = bytearray()
    for y in range(height):
        for x in range(width):
            data += bytes((x % 256, y % 256, (x + y) % 256, 255))
    write(layer, bytes(data))
    if kind == "indexed":
        palette = Gimp.ConvertPaletteType.GENERATE
        image.convert_indexed(Gimp.ConvertDitherType.NONE, palette, 64, False, False, "")
    if os.environ.get("DISPLAY"):
        Gimp.Display.new(image)
        Gimp.displays_flush()
    return image


def painting(image):
    return next(layer for layer in image.get_layers() if layer.get_name() == "painting")


def new_layer(image, name, width, height, x=0, y=0, parent=None, color=(220, 20, 30, 255)):
    base = image.get_base_type()
    layer_type = TYPES["rgb" if base == Gimp.ImageBaseType.RGB else "grey"][1]
    layer = Gimp.Layer.new(image, name, width, height, layer_type, 100, Gimp.LayerMode.NORMAL)
    image.insert_layer(layer, parent, 0)
    layer.set_offsets(x, y)
    write(layer, bytes(color) * (width * height))
    return layer


def write(layer, data, rgba=RGBA):
    buffer = layer.get_buffer()
    buffer.set(Gegl.Rectangle.new(0, 0, layer.get_width(), layer.get_height()), rgba, data)
    buffer.flush()
    layer.update(0, 0, layer.get_width(), layer.get_height())


def read(drawable, rgba=RGBA):
    rectangle = Gegl.Rectangle.new(0, 0, drawable.get_width(), drawable.get_height())
    return drawable.get_buffer().get(rectangle, 1.0, rgba, Gegl.AbyssPolicy.NONE)


def raw(drawable):
    """The bytes of a drawable in its own precision, to compare."""
    return bytes(read(drawable, "RGBA float"))


def seen(image):
    """What is seen of the image: RGBA, 8 bit."""
    layer = Gimp.Layer.new_from_visible(image, image, "seen")
    data = read(layer)
    layer.delete()
    return data


def seen_exactly(image):
    layer = Gimp.Layer.new_from_visible(image, image, "seen")
    data = raw(layer)
    layer.delete()
    return data


def dump(name, data):
    with open(FILES + "/" + name, "wb") as file:
        file.write(bytes(data))


def tree(image):
    """Names of the layers from top to bottom; a group is [name, [children]]."""

    def names(items):
        return [[i.get_name(), names(i.get_children())] if i.is_group() else i.get_name() for i in items]

    return names(image.get_layers())


def select(image, x, y, w, h):
    image.select_rectangle(Gimp.ChannelOps.REPLACE, x, y, w, h)


def select_softly(image, mask):
    """The whole selection from bytes, one a pixel."""
    Gimp.Selection.all(image)
    channel = image.get_selection()
    buffer = channel.get_buffer()
    buffer.set(Gegl.Rectangle.new(0, 0, image.get_width(), image.get_height()), "Y u8", mask)
    buffer.flush()
    channel.update(0, 0, image.get_width(), image.get_height())


def call(action, image, drawables=None, **arguments):
    """Run a procedure of Impasto without asking: [status, the values, GIMP's last error]."""
    procedure = Gimp.get_pdb().lookup_procedure("plug-in-impasto-" + action)
    config = procedure.create_config()
    config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
    if image is not None:
        config.set_property("image", image)
        config.set_core_object_array(
            "drawables", list(image.get_selected_drawables() if drawables is None else drawables)
        )
    for name, value in arguments.items():
        config.set_property(name.replace("_", "-"), value)
    values = procedure.run(config)
    return [values.index(0).value_nick, values, Gimp.get_pdb().get_last_error()]


def layers_of(answer):
    assert answer[0] == "success", answer[2]
    return list(answer[1].get_core_object_array(1))


def close_all():
    """Close every image, without asking."""
    for number in range(1, 400):
        if Gimp.Display.id_is_valid(number):
            Gimp.Display.get_by_id(number).delete()
    for image in Gimp.get_images():
        if image.is_valid():
            image.delete()


def place(layer):
    offsets = layer.get_offsets()
    return [offsets.offset_x, offsets.offset_y, layer.get_width(), layer.get_height()]
