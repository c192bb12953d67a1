"""Code from the tests, run on the main thread of a GIMP plug-in process that has a GLib main loop.

A frame is a 4-byte big-endian length and JSON: {"code"} in, {"ok", "value" or "error"} out. The code runs in one
namespace that lives as long as the process; its variable `result` is returned. If it defines a generator function
`gen`, that is stepped from the main loop, so that a test waits while the process goes on:

    yield 0.2                              wait that many seconds
    yield (lambda: condition, timeout)     wait until the condition is true
    return value                           the answer
"""

import json
import os
import socket
import struct
import threading
import time
import traceback


class Bridge:
    def __init__(self, path):
        self.namespace = {"bridge": self, "__name__": "test_code"}
        self.errors = []
        self.listener = socket.socket(socket.AF_UNIX)
        if os.path.exists(path):
            os.unlink(path)
        self.listener.bind(path + ".new")
        self.listener.listen(4)
        os.rename(path + ".new", path)  # whoever sees it can connect
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        from gi.repository import GLib

        while True:
            head = self._receive(connection, 4)
            if head is None:
                return
            message = json.loads(self._receive(connection, struct.unpack(">I", head)[0]))
            done = threading.Event()
            answer = {}
            GLib.idle_add(self._run, message["code"], answer, done)
            done.wait()
            data = json.dumps(answer, default=repr).encode()
            try:
                connection.sendall(struct.pack(">I", len(data)) + data)
            except OSError:
                return

    def _receive(self, connection, size):
        data = b""
        while len(data) < size:
            try:
                piece = connection.recv(size - len(data))
            except OSError:
                return None
            if not piece:
                return None
            data += piece
        return data

    def _run(self, code, answer, done):
        names = self.namespace
        names.pop("result", None)
        names.pop("gen", None)
        try:
            exec(compile(code, "<test>", "exec"), names)
            if "gen" in names:
                self._step(names["gen"](), answer, done)
                return False
            answer.update(ok=True, value=names.get("result"))
        except BaseException:
            answer.update(ok=False, error=traceback.format_exc())
        done.set()
        return False

    def _step(self, generator, answer, done):
        from gi.repository import GLib

        try:
            wait = next(generator)
        except StopIteration as end:
            answer.update(ok=True, value=end.value)
            done.set()
            return False
        except BaseException:
            answer.update(ok=False, error=traceback.format_exc())
            done.set()
            return False
        if not isinstance(wait, tuple):
            GLib.timeout_add(int(wait * 1000), self._step, generator, answer, done)
            return False
        condition, timeout = wait
        end = time.monotonic() + timeout

        def poll():
            try:
                if condition():
                    self._step(generator, answer, done)
                    return False
            except BaseException:
                answer.update(ok=False, error=traceback.format_exc())
                done.set()
                return False
            if time.monotonic() > end:
                answer.update(ok=False, error=f"no success within {timeout} s: {condition.__code__}")
                done.set()
                return False
            return True

        GLib.timeout_add(20, poll)
        return False
