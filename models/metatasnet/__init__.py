"""Meta-TasNet: one mask network per instrument, whose weights a generator makes from an instrument embedding."""
