"""Separation by example: queries learnt from a recording, notes out of audio, notes as a score, notes as sound.

`queries` holds the file a recording becomes, `enroll` makes it, `graphs` opens the two graphs that stand beside
a model, `notes` turns posteriors into notes, `smf` and `score` read and write MIDI, `transcribe` and `synth` are
what the commands of these names do. Formats and examples: ``docs/queries.md``.
"""
