"""Made the files in this folder: small Conditioned U-Nets in Keras, saved by TensorFlow, with inputs and outputs.

Not run by the tests, which need no TensorFlow. Made with tensorflow 2.21 and tf_keras 2.21::

    pip install tensorflow tf_keras && python tests/models/cunet/data/make.py

The networks are built in Keras' functional style from the description in the paper and the layer tables of upstream's
configuration, in upstream's order of creation, so that layers are numbered as its checkpoints number them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

HERE = Path(__file__).parent
FILTERS, WIDTHS, BINS, FRAMES = (2, 3), (4, 5, 6), 16, 8
L = keras.layers


def build(variant: str) -> Any:
    """One variant with random weights and statistics."""
    inputs = [L.Input((BINS, FRAMES, 1))]
    film, _, control = variant.partition("_")
    scales = shifts = None
    if control:
        inputs.append(L.Input((1, 4) if control == "dense" else (4, 1)))
        scales, shifts = control_network(inputs[1], film, control)
    x, skips, start = inputs[0], [], 0
    for index, filters in enumerate(FILTERS):
        x = L.Conv2D(filters, 5, strides=2, padding="same")(x)
        x = L.BatchNormalization(momentum=0.9)(x)
        if control:
            first, size = (index, 1) if film == "simple" else (start, filters)
            start += filters
            part = [
                L.Lambda(lambda t, first=first, size=size: t[:, :, first : first + size])(t) for t in (scales, shifts)
            ]
            x = L.Lambda(lambda t: t[0] * t[1][:, :, None, :] + t[2][:, :, None, :])([x, *part])
        x = L.LeakyReLU(0.2)(x)
        skips.append(x)
    skips.pop()
    widths = (*FILTERS[-2::-1], 1)
    for index, filters in enumerate(widths):
        if index:
            x = L.Concatenate()([x, skips.pop()])
        x = L.Conv2DTranspose(filters, 5, strides=2, padding="same")(x)
        x = L.BatchNormalization(momentum=0.9)(x)
        if index in (1, 2, 3):
            x = L.Dropout(0.5)(x)
        x = L.Activation("sigmoid" if index == len(widths) - 1 else "relu")(x)
    return keras.Model(inputs, L.Multiply()([inputs[0], x]))


def control_network(x: Any, film: str, control: str) -> tuple[Any, Any]:
    """Scales and shifts from the condition."""
    for index, width in enumerate(WIDTHS):
        if control == "dense":
            x = L.Dense(width, activation="relu")(x)
        else:
            x = L.Conv1D(width, 4, padding="same" if index < 2 else "valid", activation="relu")(x)
        if index:
            x = L.BatchNormalization(momentum=0.9)(L.Dropout(0.5)(x))
    size = len(FILTERS) if film == "simple" else sum(FILTERS)
    return L.Dense(size)(x), L.Dense(size)(x)


def main() -> None:
    random = np.random.default_rng(0)
    for variant in ("standard", "simple_dense", "complex_dense", "simple_cnn", "complex_cnn"):
        model = build(variant)
        for layer in model.layers:
            weights = [random.normal(0, 0.3, weight.shape) for weight in layer.get_weights()]
            if isinstance(layer, L.BatchNormalization):  # gamma, beta, moving mean, moving variance
                weights[0], weights[3] = (random.uniform(0.5, 1.5, weight.shape) for weight in (weights[0], weights[3]))
            layer.set_weights(weights)
        magnitude = random.uniform(0, 1, (2, BINS, FRAMES, 1)).astype(np.float32)
        condition = random.uniform(0, 1, (2, 4)).astype(np.float32)
        shaped = condition[:, None, :] if variant.endswith("dense") else condition[:, :, None]
        output = model.predict([magnitude] if variant == "standard" else [magnitude, shaped], verbose=0)
        np.savez_compressed(HERE / f"{variant}.npz", magnitude=magnitude, condition=condition, output=output)
        model.save_weights(HERE / variant)
        if variant == "complex_cnn":
            model.save(HERE / f"{variant}.h5", include_optimizer=False)
    (HERE / "checkpoint").unlink()
    print(tf.__version__, keras.__version__)


if __name__ == "__main__":
    main()
