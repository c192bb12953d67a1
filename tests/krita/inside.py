# ruff: noqa: F821
# Runs inside Krita, in the namespace of the test code (see conftest.py): what the tests use to look and to act.
import sys

from krita import Krita, Selection

qt = "PyQt6" if "PyQt6.QtCore" in sys.modules else "PyQt5"
for part in ("QtCore", "QtGui", "QtWidgets", "QtTest"):
    exec(f"from {qt}.{part} import *")

app = Krita.instance()
window = app.activeWindow().qwindow()
window.move(0, 0)
window.resize(1600, 1000)


def docker():
    return next(d for d in app.dockers() if d.objectName() == "impasto_docker")


def widget(name):
    found = docker().findChild(QWidget, "impasto_" + name)
    assert found is not None, name
    return found


def shown(name):
    return widget(name).isVisible()


def controller():
    return docker().controller


def connected():
    return controller().connection.state == "connected" and controller().catalog is not None


def idle():
    return connected() and controller().running() is None


def begin(act):
    """Do what begins a job, and wait until the panel knows of it: a quick one is over before it is seen running."""

    def known():
        return {job.job_id for job in (*controller().jobs.active, *controller().jobs.ended)}

    before = known()
    act()
    yield (lambda: known() - before or (controller().notice and controller().notice.is_error), 10)
    assert known() - before, controller().notice


def new_document(width=256, height=192, depth="U8", model="RGBA", profile=""):
    """A document in front, the only one; 8-bit ones show a gradient that tells every pixel apart.

    To be used as `doc = yield from new_document()`: a document that is closed and another that is opened in one turn of
    the event loop can crash Krita 5.1.
    """
    yield from close_all()
    doc = app.createDocument(width, height, "test", model, depth, profile, 72.0)
    app.activeWindow().addView(doc)
    if (model, depth) == ("RGBA", "U8"):
        node = doc.createNode("painting", "paintlayer")
        data = bytearray()
        for y in range(height):
            for x in range(width):
                data += bytes((x % 256, y % 256, (x + y) % 256, 255))
        node.setPixelData(QByteArray(bytes(data)), 0, 0, width, height)
        doc.rootNode().addChildNode(node, None)
    doc.refreshProjection()
    doc.waitForDone()
    yield 0.2
    return doc


def close_all():
    for old in app.documents():
        old.waitForDone()
        old.setModified(False)
        yield 0.2
        old.close()
        yield 0.2


def select(doc, x, y, w, h):
    s = Selection()
    s.select(x, y, w, h, 255)
    doc.setSelection(s)


def projection(doc):
    doc.refreshProjection()
    doc.waitForDone()
    return bytes(doc.pixelData(0, 0, doc.width(), doc.height()))


def layers(doc):
    return [n.name() for n in doc.rootNode().childNodes()]


def prompt(text):
    widget("prompt").setPlainText(text)


def press(name):
    QTest.mouseClick(widget(name), Qt.MouseButton.LeftButton)


def strip():
    return docker().results.strip


def scope(name):
    # Which pictures the strip lists: "document", "all" or "starred".
    box = widget("scope")
    box.setCurrentIndex(box.findData(name))


def at(widget_):
    """Where to click, in screen pixels."""
    p = widget_.mapToGlobal(widget_.rect().center())
    return [p.x(), p.y()]


def state(doc):
    """All that an untouched document keeps."""
    undo = app.action("edit_undo")
    return [projection(doc).hex(), layers(doc), undo.isEnabled(), undo.text()]


docker().show()
docker().raise_()
