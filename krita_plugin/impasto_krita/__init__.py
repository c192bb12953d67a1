"""Impasto's plug-in for Krita 5.1 to 6: a docker and the action "inpaint selection".

Imported outside Krita (tools, tests of the toolkit-free parts) this package does nothing.
"""

import importlib.util

if importlib.util.find_spec("krita") is not None:
    from .vendored import import_vendored

    import_vendored()

    from .extension import register

    register()
