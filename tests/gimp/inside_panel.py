# Runs inside Impasto's own process with a window, in the namespace of the test code: how the tests look and act.
from gi.repository import Gtk


def top(name):
    return next(w for w in Gtk.Window.list_toplevels() if w.get_name() == name)


def widget(name, root=None):
    """The widget called impasto_NAME, wherever it is in its window."""
    found = []

    def look(item):
        if item.get_name() == "impasto_" + name:
            found.append(item)
        if isinstance(item, Gtk.Container):
            item.forall(look)

    for window in [root] if root is not None else Gtk.Window.list_toplevels():
        look(window)
    assert found, name
    return found[0]


def at(item):
    """The middle of a widget, in screen pixels."""
    _, x, y = Gtk.Widget.get_window(item).get_origin()
    room = item.get_allocation()
    if item.get_has_window():
        return [x + room.width // 2, y + room.height // 2]
    return [x + room.x + room.width // 2, y + room.y + room.height // 2]


def panel():
    return top("impasto_panel")


def controller():
    return panel().controller


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


def shown(name):
    return widget(name).get_visible()
