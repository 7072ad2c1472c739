"""What a built model and its optimizer say of a recipe, in words that a ledger repeats."""

import math
import re
from collections.abc import Iterator

import torch
from torch import nn

from .of_networks import DROP_PATHS

PREFIX = '(recipe).'
"""Of the lines in digests of configs."""
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
LAYER_SCALE = re.compile(r'(?:^|\.)(?:gamma_?\d?|layer_scale\w*|ls_?\d?(?:\.\w+)?)$')
"""Names of parameters that scale the branch of a block."""


def describe(
    model: nn.Module, groups: list[dict], defaults: dict, layer_decay: float | None
) -> dict[str, str]:
    """Values of a recipe that follow from the model.

    Args:
        model: The whole model.
        groups: Parameter groups of its optimizer.
        defaults: Settings of the optimizer.
        layer_decay: ``paramwise_cfg.layer_decay_rate``, if there is one.
    """
    return {
        'no_decay': _no_decay(model, groups, defaults),
        'lr_mult': _lr_mult(model, groups, defaults, layer_decay),
        'drop_path': _drop_path(model),
        'layer_scale': _layer_scale(model.backbone),
        'norm': _norms(model.backbone.modules(), getattr(model.backbone, 'norm_eval', False)),
        'head_norm': _norms(m for part in _heads(model) for m in part.modules()),
        'frozen': _frozen(model.backbone),
    }


def _heads(model: nn.Module) -> list[nn.Module]:
    return [module for name, module in model.named_children() if name != 'backbone']


def _kinds(model: nn.Module) -> dict[int, tuple[str, str]]:
    """Part and kind of every parameter, by its id: norm, bias, weight, or its own name."""
    found = {}
    for prefix, module in model.named_modules():
        part = 'backbone' if f'{prefix}.'.startswith('backbone.') else 'heads'
        for name, p in module.named_parameters(recurse=False):
            if _is_norm(module):
                kind = 'norm'
            elif name == 'bias' or (name.endswith('_bias') and p.ndim == 1 and 'proj' in name):
                kind = 'bias'
            elif name == 'weight' or (name.endswith('_weight') and 'proj' in name):
                kind = 'layer scale' if LAYER_SCALE.search(f'{prefix}.{name}') else 'weight'
                kind = 'embedding' if isinstance(module, nn.Embedding) else kind
            else:
                kind = 'layer scale' if LAYER_SCALE.search(name) else re.sub(r'_?\d+', '', name)
            found.setdefault(id(p), (part, kind))
    return found


def _is_norm(module: nn.Module) -> bool:
    return 'norm' in type(module).__name__.lower() and not list(module.children())


def _trained(groups: list[dict]) -> Iterator[tuple[dict, torch.nn.Parameter]]:
    for group in groups:
        yield from ((group, p) for p in group['params'] if p.requires_grad)


def _no_decay(model: nn.Module, groups: list[dict], defaults: dict) -> str:
    """Kinds of parameters by part that do not decay: all of a kind, or ``(part)`` of it."""
    if not defaults.get('weight_decay'):
        return 'all'
    kinds, factors = _kinds(model), {}
    for group, p in _trained(groups):
        factor = group['weight_decay'] / defaults['weight_decay']
        factors.setdefault(kinds[id(p)], set()).add(round(factor, 6))
    found: dict[str, list[str]] = {'backbone': [], 'heads': []}
    for (part, kind), values in sorted(factors.items()):
        if values == {0.0}:
            found[part].append(kind)
        elif 0.0 in values:
            found[part].append(f'{kind} (part)')
        for value in sorted(values - {0.0, 1.0}):
            found[part].append(f'{kind} x{value:g}')
    return '; '.join(f'{part}: {", ".join(names) or "none"}' for part, names in found.items())


def _lr_mult(model: nn.Module, groups: list[dict], defaults: dict, rate: float | None) -> str:
    """Rates of the groups as multiples of the optimizer's, or as powers of a layer decay."""
    kinds, factors = _kinds(model), {'backbone': set(), 'heads': set()}
    for group, p in _trained(groups):
        factors[kinds[id(p)][0]].add(group['lr'] / defaults['lr'])
    return '; '.join(f'{part} {_factors(found, rate)}' for part, found in factors.items() if found)


def _factors(found: set[float], rate: float | None) -> str:
    if rate is not None and rate < 1 and found != {1.0}:
        powers = sorted({round(math.log(f, rate), 4) for f in found})
        if all(p.is_integer() for p in powers):
            return f'{rate:g}^({_ranges([int(p) for p in powers])})'
    return ', '.join(f'{f:.4g}' for f in sorted({float(f'{f:.6g}') for f in found}))


def _ranges(numbers: list[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0..2, 5``."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ', '.join(f'{r[0]}..{r[-1]}' if len(r) > 1 else str(r[0]) for r in runs)


def _drop_path(model: nn.Module) -> str:
    rates = [
        float(getattr(m, 'rate', getattr(m, 'drop_prob', None)) or 0)
        for m in model.backbone.modules()
        if type(m).__name__ in DROP_PATHS
    ]
    return f'{max(rates, default=0.0):.4g}'


def _layer_scale(backbone: nn.Module) -> str:
    values = {
        f'{float(p.detach().flatten()[0]):.3g}'
        for name, p in backbone.named_parameters()
        if LAYER_SCALE.search(name) and not p.is_meta and p.numel()
    }
    return ', '.join(sorted(values)) or 'none'


NAMES = {
    'BatchNorm2d': 'BN',
    'BatchNorm1d': 'BN',
    'SyncBatchNorm': 'SyncBN',
    'GroupNorm': 'GN',
    'LayerNorm': 'LN',
    'LayerNorm2d': 'LN',
    'GroupNorm1': 'GN1',
}


def _norms(modules: Iterator[nn.Module], frozen: bool = False) -> str:
    found = {}
    for module in modules:
        if not _is_norm(module):
            continue
        name = type(module).__name__
        if isinstance(module, nn.SyncBatchNorm):
            name = 'SyncBN'
        elif isinstance(module, BATCH_NORMS):
            name = 'BN'
        else:
            name = next(
                (NAMES[c.__name__] for c in type(module).mro() if c.__name__ in NAMES), name
            )
        found[name + (' (statistics kept)' if frozen and name in ('BN', 'SyncBN') else '')] = None
    return ', '.join(sorted(found)) or 'none'


def _frozen(backbone: nn.Module) -> str:
    """Modules of the backbone, at most two names deep, without any parameter that is trained."""
    if not any(not p.requires_grad for p in backbone.parameters()):
        return 'nothing'
    trained, still = set(), set()
    for name, p in backbone.named_parameters():
        parts = name.split('.')[:-1] or name.split('.')
        for depth in (1, 2):
            (trained if p.requires_grad else still).add('.'.join(parts[:depth]))
    whole = still - trained
    return ', '.join(sorted(n for n in whole if n.rsplit('.', 1)[0] not in whole - {n}))
