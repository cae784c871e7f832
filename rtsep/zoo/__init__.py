"""The models shipped with rtsep. Listing and resolving load neither NumPy nor ONNX Runtime."""

from rtsep.zoo.registry import ModelCard, Verification, ZooEntry, list_models, read_info, resolve, verify

__all__ = ["ModelCard", "Verification", "ZooEntry", "list_models", "read_info", "resolve", "verify"]
