"""The web console: a page with faders, meters, notes, spectra and the clockwork of a running engine.

`rtsep.console.live.Console` starts it; the page is served by a process of its own.
"""
