"""A command server inside Krita, for the tests only: it runs any code that it is sent.

It does nothing unless the environment variable KBRIDGE_SOCKET names a socket path.
"""

import os

from krita import Extension, Krita

from .bridge import Bridge


class BridgeExtension(Extension):
    def setup(self):
        path = os.environ.get("KBRIDGE_SOCKET")
        self.bridge = Bridge(path, self) if path else None

    def createActions(self, window):
        pass


Krita.instance().addExtension(BridgeExtension(Krita.instance()))
