"""One registry of parameters, and what moves them: OSC, MIDI controllers, setup files."""
