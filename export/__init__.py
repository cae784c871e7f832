"""From PyTorch to the streaming contract: wrap, name, describe, reload, compare, benchmark.

``python -m export openunmix CHECKPOINT -o FILE.onnx`` is the command; :func:`export.pipeline.export_model` is
the call behind it, for any model that offers :class:`export.wrap.StreamingModel`.
"""
