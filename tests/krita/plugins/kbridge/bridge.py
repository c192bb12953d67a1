"""Code from the tests, run on Krita's main thread by a QLocalServer in Krita's own event loop.

A frame is a 4-byte big-endian length and JSON: {"id", "code"} in, {"id", "ok", "value" or "error"} out. The code runs
in one namespace that lives as long as Krita; its variable `result` is returned. If it defines a generator function
`gen`, that is stepped from the event loop, so that a test waits while Krita goes on:

    yield 0.2                              wait that many seconds
    yield (lambda: condition, timeout)     wait until the condition is true
    return value                           the answer
"""

import faulthandler
import json
import struct
import sys
import time
import traceback

import krita  # noqa: F401  loads the PyQt that Krita runs on

if "PyQt6.QtCore" in sys.modules:
    from PyQt6.QtCore import QObject, QTimer
    from PyQt6.QtNetwork import QLocalServer
else:
    from PyQt5.QtCore import QObject, QTimer
    from PyQt5.QtNetwork import QLocalServer


class Bridge(QObject):
    def __init__(self, path, parent=None):
        super().__init__(parent)
        self.path = path
        self.buffers = {}
        self.namespace = {"bridge": self, "__name__": "test_code"}
        faulthandler.enable()  # a crash of Krita leaves the Python line in its log
        # Krita shows exceptions of plug-ins in a modal box. Record them; the tests assert that there are none.
        self.errors = []
        sys.excepthook = lambda *exc: self.errors.append("".join(traceback.format_exception(*exc)))
        QTimer.singleShot(0, self._listen)  # one turn later there is a main window

    def _listen(self):
        QLocalServer.removeServer(self.path)
        self.server = QLocalServer(self)
        if not self.server.listen(self.path):
            raise RuntimeError(self.server.errorString())
        self.server.newConnection.connect(self._accept)

    def _accept(self):
        while self.server.hasPendingConnections():
            socket = self.server.nextPendingConnection()
            self.buffers[socket] = b""
            socket.readyRead.connect(lambda s=socket: self._read(s))
            socket.disconnected.connect(lambda s=socket: self.buffers.pop(s, None))

    def _read(self, socket):
        data = self.buffers[socket] + bytes(socket.readAll())
        while len(data) >= 4:
            size = struct.unpack(">I", data[:4])[0]
            if len(data) < 4 + size:
                break
            message, data = json.loads(data[4 : 4 + size]), data[4 + size :]
            # Outside the socket's own handler, so that nested event loops do no harm.
            QTimer.singleShot(0, lambda m=message: self._run(socket, m))
        self.buffers[socket] = data

    def _reply(self, socket, message, **reply):
        data = json.dumps(dict(reply, id=message.get("id")), default=repr).encode()
        socket.write(struct.pack(">I", len(data)) + data)
        socket.flush()

    def _fail(self, socket, message):
        self._reply(socket, message, ok=False, error=traceback.format_exc())

    def _run(self, socket, message):
        names = self.namespace
        names.pop("result", None)
        names.pop("gen", None)
        try:
            exec(compile(message["code"], "<test>", "exec"), names)
            if "gen" in names:
                self._step(socket, message, names["gen"]())
                return
        except BaseException:
            self._fail(socket, message)
            return
        self._reply(socket, message, ok=True, value=names.get("result"))

    def _step(self, socket, message, generator):
        try:
            wait = next(generator)
        except StopIteration as end:
            self._reply(socket, message, ok=True, value=end.value)
            return
        except BaseException:
            self._fail(socket, message)
            return
        if not isinstance(wait, tuple):
            QTimer.singleShot(int(wait * 1000), lambda: self._step(socket, message, generator))
            return
        condition, timeout = wait
        end = time.monotonic() + timeout

        def poll():
            try:
                if condition():
                    self._step(socket, message, generator)
                    return
            except BaseException:
                self._fail(socket, message)
                return
            if time.monotonic() > end:
                self._reply(socket, message, ok=False, error=f"no success within {timeout} s: {condition.__code__}")
                return
            QTimer.singleShot(20, poll)

        poll()
