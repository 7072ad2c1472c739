"""Analyses: corrupted images, dimensions, mCE, contribution maps. Their cases are no modules."""

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hybrid_mm.analysis.dimensions import dimensions, scores
from hybrid_mm.analysis.receptive_field import contribution, rectangles
from hybrid_mm.data.corruptions import corrupt
from hybrid_mm.evaluation.robustness import corruption_errors, mce
from mappings import lska

TOLERANCE = 1e-5
# np.random.seed(1000 * severity + offset) before each call
SEED = 1000
# in 255: JPEG depends on the libjpeg, sums of floats on the builds of OpenCV and SciPy
GREY_LEVELS, JPEG_LEVELS = 1, 3


class Worst:
    """Largest deviation of what was compared, relative to what is allowed, and what it was."""

    def __init__(self) -> None:
        self.error, self.failed, self.compared = 0.0, '', 0

    def add(self, name: str, error: float, allowed: float = TOLERANCE) -> None:
        self.compared += 1
        self.error = max(self.error, error)
        if not error <= allowed and not self.failed:
            self.failed = f'{name} differs by {error:.3e}'

    def values(self, name: str, ours, reference, allowed: float = TOLERANCE) -> None:
        ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
        if ours.shape != reference.shape:
            raise ValueError(f'{name}: shape {ours.shape} instead of {reference.shape}')
        scale = max(np.abs(reference).max(), 1e-30)
        error = np.abs(ours - reference).max() / scale
        self.add(name, float(error) if error == error else math.inf, allowed)

    def result(self) -> tuple[bool, str]:
        if not self.compared:
            return False, 'nothing to compare'
        return not self.failed, self.failed or f'{self.error:.3e}'


def checker() -> ModuleType:
    """The script that imports this mapping."""
    return importlib.import_module('check')


def check(path: Path, case: dict, tensors: dict[str, Tensor]) -> tuple[bool, str, str]:
    """Compare a case by what is in it; anything unknown is an error that names it."""
    worst, note = Worst(), ''
    if str(case.get('module', '')).startswith('imagecorruptions.corrupt'):
        _corruptions(case, tensors, worst)
    elif 'weights_from' in case:
        note = _contribution(path, case, tensors, worst)
    else:
        parts: dict[str, Callable] = dict(
            dim_estimation=_dimensions, erf=_rectangles, mce=_mean_corruption_error
        )
        unknown = set(case) - set(parts) - {'system', 'case'}
        if unknown:
            raise ValueError(f'cannot map {", ".join(sorted(unknown))}')
        for name, compare in parts.items():
            if name in case:
                compare(case[name], tensors, worst)
    return *worst.result(), note


def _corruptions(case: dict, tensors: dict[str, Tensor], worst: Worst) -> None:
    """Draws are those of the stored generator, so the package's functions are called as we do."""
    offset = int(case['seeding'].partition('1000*severity+')[2].partition(')')[0])
    image = tensors['input'].numpy()
    for key in (k for k in tensors if k.startswith('output/')):
        _, name, severity = key.split('/')
        ours = corrupt(image, name, int(severity), SEED * int(severity) + offset)
        distance = np.abs(ours.astype(int) - tensors[key].numpy().astype(int)).max()
        allowed = JPEG_LEVELS if name == 'jpeg_compression' else GREY_LEVELS
        worst.add(key, distance / 255, allowed / 255)


def _dimensions(case: dict, tensors: dict[str, Tensor], worst: Worst) -> None:
    za, zb, factor = (tensors[f'dim/{k}'].numpy() for k in ('za', 'zb', 'factor'))
    factors = sorted(set(factor.tolist()))[: len(case['scores_shape_texture'])]
    pairs = [(za[factor == f], zb[factor == f]) for f in factors]
    found = dimensions(pairs)
    residual = [case['score_residual']]
    worst.values('scores', found.scores, case['scores_shape_texture'] + residual)
    worst.values('dims', found.dims, case['dims_shape_texture_residual'], 0)
    worst.values('percent', found.percent, case['percent'])
    if 'paper_form_sum_of_correlations' in case:
        worst.values('paper form', scores(pairs, 'neuron'), case['paper_form_sum_of_correlations'])


def _compare_rectangles(name: str, found: dict, expected: dict, worst: Worst) -> None:
    for threshold, stored in expected.items():
        ours = found[float(threshold)]
        if (ours is None) != (stored is None):
            raise ValueError(f'{name} at {threshold}: {ours} instead of {stored}')
        if stored is not None:
            worst.values(f'{name} at {threshold}', ours, stored)


def _rectangles(case: dict, tensors: dict[str, Tensor], worst: Worst) -> None:
    if 'log10(x+1)' not in case['preprocess']:
        raise ValueError(f'cannot map preprocess={case["preprocess"]!r}')
    expected = case['rectangles_side_and_area_ratio']
    found = rectangles(tensors['erf/scores'].numpy(), [float(t) for t in expected])
    _compare_rectangles('rectangle', found, expected, worst)


def _mean_corruption_error(case: dict, tensors: dict[str, Tensor], worst: Worst) -> None:
    table = tensors['mce/top1_error_percent'].tolist()
    errors = dict(zip(case['rows'], table, strict=True))
    found, means = corruption_errors(errors), mce(errors)
    for name, expected in case['normalised_ce'].items():
        worst.values(name, found[name], expected)
    worst.values('mCE(19)', means['mCE(19)'], case['mCE_19'])
    worst.values('mCE(15)', means['mCE(15)'], case['mCE_15'])
    worst.values('mean accuracy', 100 - np.mean(table), case['mean_accuracy_19'])


class _Centre(nn.Module):
    """Sum of the rectified channels at the centre of the last map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        x = self.network(x)[-1]
        return x[:, :, x.shape[2] // 2, x.shape[3] // 2].relu().sum()


def _contribution(path: Path, case: dict, tensors: dict[str, Tensor], worst: Worst) -> str:
    """The weights are those of another case, ``golden/<slug>/<case>.safetensors (weight/*)``.

    Where the scores were stored with wrong gradients of torch (see ``check_tensors``), ours have to
    be theirs in the layout in which that happens, and our gradients the derivatives.
    """
    slug, name = case['weights_from'].split(' ')[0].split('/')[-2:]
    stored = load_file(path.parents[1] / slug / name)
    weights = {k[7:]: v for k, v in stored.items() if k.startswith('weight/')}
    network = lska.build(case.get('network', 'VAN'), dict(case['config']), weights)
    network = network.double().eval().requires_grad_(False)
    images = tensors['input'].double().split(1)

    def scores_of_images() -> Tensor:
        return torch.cat([contribution(lambda x: network(x)[-1], image) for image in images])

    found, note, expected = scores_of_images(), '', tensors['score_per_image']
    if (found - expected).abs().max() > TOLERANCE * expected.abs().max():
        for image in images:
            x = image.clone().requires_grad_()
            centre = _Centre(network)
            (gradient,) = torch.autograd.grad(centre(x), x)
            inputs = {'input': image, 'cotangent/0': torch.ones(())}
            if not checker().is_derivative(centre, inputs, gradient):
                raise ValueError('our gradient is not the derivative')
        with lska.reference_layout():
            found, note = scores_of_images(), lska.LAYOUT_NOTE
    worst.values('scores', found, expected)
    worst.values('mean', found.mean(0), tensors['score_mean'])
    expected = case['rectangles_side_and_area_ratio']
    ours = rectangles(found.mean(0).numpy(), [float(t) for t in expected])
    _compare_rectangles('rectangle', ours, expected, worst)
    return note
