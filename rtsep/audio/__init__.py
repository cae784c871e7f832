"""Audio in and out: files, devices, rings, the streaming resampler and the backends."""
