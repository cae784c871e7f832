"""Conditioned U-Net: one network for all instruments, told by a condition vector which ones to keep."""
