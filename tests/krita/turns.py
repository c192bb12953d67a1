"""Code for Krita that measures how long each turn of the plug-in holds the main thread, apart from Krita's own calls.

Measured is the processor time of the main thread in each of our turns, less what was spent inside Krita's methods: on
a machine that does other work the clock on the wall would measure that. The clock is kept beside it.
"""

from __future__ import annotations

MOST = 0.050
"""Seconds: DESIGN's bound for one turn."""

WATCH = """
import time
import krita

# For each turn that is going on: seconds in Krita's methods, how deep in them, by name; and the seconds by the clock.
stack = [[0.0, 0, {}, 0.0]]
# Of each turn: what, seconds of ours, of Krita's, Krita's longest calls, and ours by the clock.
turns = []
METHODS = {
    krita.Document: "pixelData projection waitForDone refreshProjection createNode setAnnotation rootNode activeNode "
                    "setActiveNode setModified close selection width height colorModel colorDepth colorProfile xRes",
    krita.Node: "pixelData projectionPixelData setPixelData addChildNode childNodes parentNode setName uniqueId bounds "
                "colorModel colorDepth colorProfile type visible clone",
    krita.Selection: "pixelData duplicate x y width height",
    krita.Krita: "createDocument documents activeDocument activeWindow windows",
    krita.Window: "addView activeView",
}

def editors(name, method):
    def call(*args):
        now = stack[-1]
        began, clock = time.thread_time(), time.perf_counter()
        now[1] += 1
        try:
            return method(*args)
        finally:
            now[1] -= 1
            if not now[1]:
                spent = time.thread_time() - began
                now[0] += spent
                now[3] += time.perf_counter() - clock
                now[2][name] = now[2].get(name, 0.0) + spent
    return call

def watch():
    for kind, names in METHODS.items():
        for name in names.split():
            setattr(kind, name, editors(name, getattr(kind, name)))

def turn(what, deed, *args):
    # Krita may run its event loop within a call, and so begin another turn of ours.
    stack.append([0.0, 0, {}, 0.0])
    began, clock = time.thread_time(), time.perf_counter()
    try:
        return deed(*args)
    finally:
        whole, held = time.thread_time() - began, time.perf_counter() - clock
        its, _, calls, its_held = stack.pop()
        longest = sorted(calls.items(), key=lambda item: -item[1])[:3]
        turns.append([what, whole - its, its, ", ".join(f"{n} {1000 * t:.0f}" for n, t in longest), held - its_held])

class Heart(QTimer):
    # Beats every 5 ms while the main thread is free; `longest` is the longest time without a beat.
    def __init__(self):
        super().__init__()
        self.setInterval(5)
        self.setTimerType(Qt.TimerType.PreciseTimer)
        self.timeout.connect(self.beat)
        self.start()
        self.reset()

    def beat(self):
        now = time.perf_counter()
        self.longest = max(self.longest, now - self.last)
        self.last = now

    def reset(self):
        self.last, self.longest = time.perf_counter(), 0.0

def timed_event(event):
    turn(type(event).__name__ + " " + getattr(event, "state", ""), controller().handle, event)

def large(side):
    global doc
    yield from close_all()
    doc = app.createDocument(side, side, "large", "RGBA", "U8", "", 72.0)
    app.activeWindow().addView(doc)
    node = doc.createNode("painting", "paintlayer")
    doc.rootNode().addChildNode(node, None)
    row = bytes(v % 256 for v in range(4 * side))
    node.setPixelData(QByteArray(row * side), 0, 0, side, side)
    doc.refreshProjection()
    doc.waitForDone()
    yield 0.5
    doc.setActiveNode(node)
    yield 0.3

def job(mode):
    docker().set_mode(mode)
    yield (lambda: widget("inpaint").isEnabled(), 20)
    turns.clear()
    turn("click", docker().ask)
    assert controller().running() is not None, controller().notice
    yield (lambda: controller().running() is None, 240)
    yield (lambda: any(what.startswith("ResultReady") for what, *_ in turns), 60)
    yield 0.3
    assert not (controller().notice and controller().notice.is_error), controller().notice
    return turns[:]

watch()
controller().signals.arrived.disconnect(controller().handle)
controller().signals.arrived.connect(timed_event, Qt.ConnectionType.QueuedConnection)
"""
