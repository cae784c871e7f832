"""Plugins on stems and on the master. Importing this package loads neither NumPy nor pedalboard."""

from rtsep.plugins.spec import MASTER, PluginSpec

__all__ = ["MASTER", "PluginSpec"]
