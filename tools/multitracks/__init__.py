"""Music-like songs with exact stems, arranged anew from free MIDI files (see ``tools/render_multitracks.py``)."""
