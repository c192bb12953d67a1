#!/usr/bin/env python3
"""A test-only plug-in that starts with GIMP and runs the code that it is sent (bridge.py); nothing without GBRIDGE."""

import os
import sys

import gi

gi.require_version("Gegl", "0.4")
gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, GLib  # noqa: E402

NAME = "plug-in-test-gbridge"


def run(procedure, config, data=None):
    from bridge import Bridge

    plug_in = procedure.get_plug_in()
    procedure.persistent_ready()
    plug_in.persistent_enable()
    if os.environ.get("GBRIDGE"):
        Bridge(os.environ["GBRIDGE"])
        GLib.MainLoop().run()
    return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, GLib.Error())


class GBridge(Gimp.PlugIn):
    def do_set_i18n(self, name):
        return False

    def do_query_procedures(self):
        return [NAME]

    def do_create_procedure(self, name):
        return Gimp.Procedure.new(self, name, Gimp.PDBProcType.PERSISTENT, run)


Gimp.main(GBridge.__gtype__, sys.argv)
