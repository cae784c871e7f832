"""Our own streaming separation system: the spectrum split into bands, small recurrent layers shared among them."""
