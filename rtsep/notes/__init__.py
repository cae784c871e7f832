"""Live notes: what each stem plays, as MIDI, with no hanging note."""
