"""Takes: what plays, as files, from one moment to another."""
