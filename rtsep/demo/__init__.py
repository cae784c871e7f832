"""The demonstration: a song made of arithmetic, played through the engine, and a report of what came out."""

DEMO_MODEL = "openunmix"
"""On records the default model is better (docs/models/README.md), but it takes more of the song's lead for a voice."""
