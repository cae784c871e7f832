"""Clips with exact notes for training transcribers (see ``tools/render_notes.py``)."""
