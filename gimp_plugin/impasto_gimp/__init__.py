"""Impasto's plug-in for GIMP 3: menu procedures under Filters > Impasto, for scripts too, and a panel that stays open.

GIMP starts `impasto_gimp.py` in this folder, in a process of its own for every call. Imported outside GIMP this package
does nothing.
"""
