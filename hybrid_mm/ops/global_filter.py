"""Global filter of HorNet: multiplication of the spectrum of a map.

Source: HorNet (arXiv 2207.14284), section 3.2, after "Global Filter Networks" (arXiv 2107.00645).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import has_symbols, once_per_graph
from hybrid_mm.ops.precision import accurate

__all__ = ['global_filter', 'resize_spectrum']


def global_filter(x: Tensor, spectrum: Tensor, impl: str = 'auto') -> Tensor:
    """Multiply the spectrum of a map by a learned one, in float32 (float64 for such maps).

    Args:
        x: (N, C, H, W).
        spectrum: Real and imaginary parts (C, rows, columns, 2), which are interpolated to H rows
            and W // 2 + 1 columns.
        impl: 'fft', or 'reference', products with matrices of cosines and sines.

    Returns:
        (N, C, H, W), accurate.

    Raises:
        ValueError: An unknown impl.
    """
    height, width = x.shape[2:]
    x = accurate(x)
    weight = resize_spectrum(spectrum.to(x.dtype), (height, width // 2 + 1))
    # ONNX has no complex numbers, and the transform takes no empty batch
    if resolve(impl, 'global_filter') == 'reference' or not x.numel():
        return filter_by_matrices(x, weight)
    # along rows, so that the transform and its backward pass work on contiguous memory
    y = torch.fft.rfft2(x.contiguous(), norm='ortho')
    return torch.fft.irfft2(y * torch.view_as_complex(weight), s=(height, width), norm='ortho')


def resize_spectrum(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate a spectrum (C, rows, columns, 2) bilinearly with aligned corners.

    Args:
        spectrum: Real and imaginary parts, (C, rows, columns, 2).
        size: Rows and columns of the result.
    """
    if not has_symbols(size) and tuple(spectrum.shape[1:3]) == tuple(size):
        return spectrum
    parts = F.interpolate(spectrum.permute(3, 0, 1, 2), size, mode='bilinear', align_corners=True)
    return parts.permute(1, 2, 3, 0).contiguous()


@once_per_graph
def _turns(
    length: int, count: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi (place * frequency) / length, (length, count of frequencies)."""
    places, frequencies = (torch.arange(n, device=device) for n in (length, count))
    period = places[-1] + 1  # a tensor: exporters take no other divisor that is symbolic
    angle = (places[:, None] * frequencies % period).to(dtype) * (2 * math.pi / period.to(dtype))
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
    cos_h, sin_h = _turns(height, height, x.dtype, x.device)
    cos_w, sin_w = _turns(width, width // 2 + 1, x.dtype, x.device)
    frequency = torch.arange(width // 2 + 1, device=x.device)
    real, imag = x @ cos_w, -(x @ sin_w)
    real, imag = cos_h @ real + sin_h @ imag, cos_h @ imag - sin_h @ real
    a, b = weight.unbind(-1)
    real, imag = real * a - imag * b, real * b + imag * a
    real, imag = cos_h @ real - sin_h @ imag, cos_h @ imag + sin_h @ real
    # half of the spectrum is left out, conjugates of the rest; 0 and the highest have none
    alone = (frequency == 0) | (2 * frequency == width)
    factor = torch.where(alone, 1.0, 2.0).to(x.dtype) / (height * width)
    return (real * factor) @ cos_w.t() - (imag * factor) @ sin_w.t()
