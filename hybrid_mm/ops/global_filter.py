"""Global filter of HorNet: multiplication of the spectrum of a map."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_spectrum(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate a spectrum (C, rows, columns, 2) bilinearly, its corners staying corners.

    Anything else than a spectrum is returned as it is.
    """
    if spectrum.ndim != 4 or tuple(spectrum.shape[1:3]) == tuple(size):
        return spectrum
    parts = F.interpolate(spectrum.permute(3, 0, 1, 2), size, mode='bilinear', align_corners=True)
    return parts.permute(1, 2, 3, 0).contiguous()


def _turns(rows: Tensor, columns: Tensor, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi (row * column) / length, (rows, columns)."""
    angle = (rows[:, None] * columns % length).to(like.dtype) * (2 * math.pi / length)
    return angle.cos(), angle.sin()


def filter_by_matrices(x: Tensor, weight: Tensor) -> Tensor:
    """``irfft2(rfft2(x) * weight)`` by products with matrices of cosines and sines.

    For exported graphs. It costs ``H W (2 H + 2 W)`` multiplications a channel instead of those of
    the fast transform.

    Args:
        x: (N, C, H, W), real.
        weight: Real and imaginary parts of the filter, (C, H, W // 2 + 1, 2).

    Returns:
        (N, C, H, W).
    """
    height, width = x.shape[2:]
    row = torch.arange(height, device=x.device)
    column = torch.arange(width, device=x.device)
    frequency = torch.arange(width // 2 + 1, device=x.device)
    cos_h, sin_h = _turns(row, row, height, x)
    cos_w, sin_w = _turns(column, frequency, width, x)
    real, imag = x @ cos_w, -(x @ sin_w)
    real, imag = cos_h @ real + sin_h @ imag, cos_h @ imag - sin_h @ real
    a, b = weight.unbind(-1)
    real, imag = real * a - imag * b, real * b + imag * a
    real, imag = cos_h @ real - sin_h @ imag, cos_h @ imag + sin_h @ real
    # the frequencies that are left out are conjugates of the others; 0 and the highest have none
    alone = (frequency == 0) | (2 * frequency == width)
    factor = torch.where(alone, 1.0, 2.0).to(x.dtype) / (height * width)
    return (real * factor) @ cos_w.t() - (imag * factor) @ sin_w.t()
