"""Causal transcribers for live MIDI: polyphonic, monophonic and drums, one architecture, a latency dial."""
