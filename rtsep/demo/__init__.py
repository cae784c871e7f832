"""The demonstration: a song made of arithmetic, played through the engine, and a report of what came out."""
