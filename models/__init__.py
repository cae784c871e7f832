"""PyTorch side of rtsep: streaming layers, the separation systems, data, training, evaluation."""
