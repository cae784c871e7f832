"""Open-Unmix: the upstream reference form (offline) and the causal streaming form."""
