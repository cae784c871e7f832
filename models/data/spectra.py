"""What training on spectra needs of a segment, computed in the data worker.

With one real mask m per band, the error ``|m X - S|^2`` summed over a band's bins is ``m^2 A - 2 m C + D``.
A, C and D are a fifth of the size of the bins and need no gradients, so that the training process sees
neither transforms nor bins. Transforms run one channel at a time to stay inside the cache, which was
measured eight times as fast as all at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.fft
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.utils.data import IterableDataset

from models.data.remix import RemixDataset
from models.openunmix.streaming import StreamingOpenUnmix


class SpectralDataset(IterableDataset[tuple[Tensor, ...]]):
    """Features and band sums of remixed segments.

    Yields ``(features [N, views * bands], a [C, N, bands], c [S, C, N, bands], d [S, N])`` with
    ``a = sum |X|^2``, ``c = sum Re(X* S)``, ``d = sum |S|^2``; see :func:`models.losses.band_snr_loss`.

    Parameters
    ----------
    remix : RemixDataset
    model : StreamingOpenUnmix
        Gives window, hop, bands and the definition of the features; its weights are not used.
    """

    def __init__(self, remix: RemixDataset, model: StreamingOpenUnmix) -> None:
        self.remix, self.bands = remix, model.bands
        self.window, self.hop = model.config.window, model.config.hop
        self.analysis = model.stft.analysis.cpu().numpy()
        self.compress = model.compress

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        torch.set_num_threads(1)
        for stems in self.remix:
            yield self.transform(stems.numpy())

    @torch.no_grad()
    def transform(self, stems: np.ndarray) -> tuple[Tensor, ...]:
        """Transform true stems ``[S, 2, T]``; see the class for what comes out."""
        spectra = [[self._spectrum(channel) for channel in stem] for stem in stems]  # S x C x [N, F, 2]
        a, c, d, mixture = [], [], 0.0, []
        for channel in range(stems.shape[1]):
            parts = [stem[channel] for stem in spectra]
            x = parts[0] + parts[1]
            for part in parts[2:]:
                x += part
            mixture.append(x)
            a.append(self._power(x))
            c.append(torch.stack([self.bands.total((x * part).sum(-1)) for part in parts]))
            # Without the Nyquist bin, which belongs to no band.
            d = d + torch.stack([part[:, :-1].square().sum(dim=(1, 2)) for part in parts])
        views = [*a, self._power(0.5 * (mixture[0] + mixture[1])), self._power(0.5 * (mixture[0] - mixture[1]))]
        features = self.compress(torch.stack(views, dim=-2))
        return features, torch.stack(a), torch.stack(c, 1), torch.as_tensor(d)

    def _power(self, spectrum: Tensor) -> Tensor:
        return self.bands.total(spectrum.square().sum(-1))

    def _spectrum(self, audio: np.ndarray) -> Tensor:
        count = audio.shape[0] // self.hop
        line = np.concatenate([np.zeros(self.window - self.hop, np.float32), audio[: count * self.hop]])
        frames = sliding_window_view(line, self.window)[:: self.hop] * self.analysis  # [N, window]
        return torch.view_as_real(torch.from_numpy(scipy.fft.rfft(frames)))
