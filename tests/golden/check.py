"""Compare our modules with stored cases of the reference implementations.

A case is ``ROOT/<slug>/<case>.json`` (``module`` and ``config`` of the reference) beside
``<case>.safetensors`` (``weight/<key>`` in the official layout, ``input``, ``output/<i>``,
``cotangent/<i>``, ``grad/input``). Our module is built from the official module and config alone,
its weights come through ``hybrid_mm.convert``, and every output and the gradient of the input are
compared: in float64 to 1e-5, in float32 to 1e-3, relative to the largest value of the tensor.
A mapping whose cases are no modules compares them itself (``check``). Where ``module`` is
``hybrid_mm.<Backbone>``, ``config`` has our arguments: those sizes that make the case small, so
that everything else is a default of ours; ``own/<our key>`` are weights that no layout has.

    python tests/golden/check.py ROOT [SLUG ...]

prints a line per case, ``PASS|FAIL slug case max_rel_err`` (the float64 error), then totals. The
exit status is 0 only if there were cases and all passed.
"""

import argparse
import importlib
import inspect
import json
import sys
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hybrid_mm import backbones
from hybrid_mm.convert import convert

sys.path.insert(0, str(Path(__file__).parent))

TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-3}


def compare(ours: Tensor, reference: Tensor) -> float:
    """Largest difference relative to the largest value of the reference."""
    if ours.shape != reference.shape:
        raise ValueError(f'shape {tuple(ours.shape)} instead of {tuple(reference.shape)}')
    ours, reference = ours.double(), reference.double()
    scale = reference.abs().max().clamp_min(1e-30)
    error = ((ours - reference).abs().max() / scale).item()
    return error if error == error else float('inf')


def sorted_keys(tensors: dict[str, Tensor], prefix: str) -> list[str]:
    """Keys ``<prefix><i>`` in the order of i."""
    return sorted((k for k in tensors if k.startswith(prefix)), key=lambda k: int(k.split('/')[1]))


def cotangents(tensors: dict[str, Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The stored cotangents, one per output."""
    return [tensors[k].to(dtype) for k in sorted_keys(tensors, 'cotangent/')]


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs of a module as a tuple."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def run(model: nn.Module, tensors: dict[str, Tensor], dtype: torch.dtype):
    """Largest relative error of the outputs, and the gradient of the input if one is stored."""
    model = model.to(dtype).eval().requires_grad_(False)
    x = tensors['input'].to(dtype).requires_grad_('grad/input' in tensors)
    outputs = as_tuple(model(x))
    expected = [tensors[k] for k in sorted_keys(tensors, 'output/')]
    if len(outputs) != len(expected):
        raise ValueError(f'{len(outputs)} outputs instead of {len(expected)}')
    error = max(compare(o.detach(), e) for o, e in zip(outputs, expected, strict=True))
    if not x.requires_grad:
        return error, None
    return error, torch.autograd.grad(outputs, x, cotangents(tensors, dtype))[0]


def is_derivative(model: nn.Module, tensors: dict[str, Tensor], grad: Tensor) -> bool:
    """Whether a gradient agrees with central differences of the model in random directions."""
    model = model.double().eval()
    x, dys = tensors['input'].double(), cotangents(tensors, torch.float64)
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def value(z: Tensor) -> Tensor:
        return sum((o * dy).sum() for o, dy in zip(as_tuple(model(z)), dys, strict=True))

    for _ in range(4):
        u = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        difference = (value(x + 1e-6 * u) - value(x - 1e-6 * u)) / 2e-6
        if (difference - (grad * u).sum()).abs() > 1e-6 * grad.norm() * u.norm():
            return False
    return True


def check(path: Path) -> tuple[bool, str, str]:
    """Check one case: passed, the error figure or why it failed, and what a reader must know."""
    case = json.loads(path.read_text())
    try:
        mapping = importlib.import_module(f'mappings.{case["system"]}')
    except ModuleNotFoundError as error:
        if error.name != f'mappings.{case["system"]}':
            raise
        return False, f'no mapping for {case["system"]!r}', ''
    try:
        tensors = load_file(path.with_suffix('.safetensors'))
        if hasattr(mapping, 'check'):
            return mapping.check(path, case, tensors)
        return check_tensors(mapping, case, tensors)
    except Exception as error:  # any failure of a case is a FAIL with its reason
        return False, f'{type(error).__name__}: {" ".join(str(error).split())}', ''


def ours(
    module: str, config: dict, weights: dict[str, Tensor], own: dict[str, Tensor]
) -> nn.Module:
    """One of our backbones by its own arguments.

    ``sizes`` in the config changes entries of the variant, by default the default one. ``weights``
    are of any layout, what is no part of it stands in ``own`` in our names.
    """
    cls, config = getattr(backbones, module.removeprefix('hybrid_mm.')), dict(config)
    if 'sizes' in config:
        arch = config.get('arch', inspect.signature(cls).parameters['arch'].default)
        config['arch'] = cls.resolve_arch(arch).to_dict() | config.pop('sizes')
    model = cls(**config)
    numbers = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    for value in numbers.values():
        value.fill_(float('nan'))
    state = convert(weights) | own
    if hasattr(model, 'load_strictly'):
        model.load_strictly(state, 'the case')
    else:
        model.load_state_dict(state, strict=True)
    missing = [key for key, value in numbers.items() if value.isnan().any()]
    if missing:  # pre-trained weights may lack what a case must have
        raise ValueError(f'the case has no {", ".join(missing[:3])}')
    return model


def check_tensors(
    mapping: ModuleType, case: dict, tensors: dict[str, Tensor]
) -> tuple[bool, str, str]:
    """Compare in float64, then in float32.

    Where only the gradient differs and the mapping knows in what memory layout the reference ran
    into a defect of torch (``reference_layout``), the stored gradient must be what our module
    gives in that layout, and our own gradient must be the derivative of our outputs; it then
    stands in for the stored one.
    """
    tensors = {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}
    weights = {k[7:]: v for k, v in tensors.items() if k.startswith('weight/')}
    own = {k[4:]: v for k, v in tensors.items() if k.startswith('own/')}

    def build() -> nn.Module:
        if case['module'].startswith('hybrid_mm.'):
            return ours(case['module'], case['config'], weights, own)
        return mapping.build(case['module'], dict(case['config']), dict(weights))

    figures, note, expected = {}, '', tensors.get('grad/input')
    for dtype, tolerance in TOLERANCES.items():
        figures[dtype], grad = run(build(), tensors, dtype)
        if grad is None:
            continue
        error = compare(grad, expected)
        if dtype == torch.float64 and error > tolerance and hasattr(mapping, 'reference_layout'):
            with mapping.reference_layout():
                stored = compare(run(build(), tensors, dtype)[1], expected)
            if stored <= tolerance and is_derivative(build(), tensors, grad):
                error, expected, note = stored, grad, mapping.LAYOUT_NOTE
        figures[dtype] = max(figures[dtype], error)
    text = f'{figures[torch.float64]:.3e}'
    if figures[torch.float32] > TOLERANCES[torch.float32]:
        text += f' but {figures[torch.float32]:.3e} in float32'
    passed = all(figures[dtype] <= TOLERANCES[dtype] for dtype in TOLERANCES)
    return passed, text, note


def main(argv: list[str] | None = None) -> int:
    """Check all cases of ROOT, or those of the given slugs."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('root', type=Path, help='folder with one folder of cases per slug')
    parser.add_argument('slugs', nargs='*', help='only these (default: all)')
    parser.add_argument('--jobs', type=int, default=1, help='cases that are compared at once')
    args = parser.parse_args(argv)
    if not args.root.is_dir():
        parser.error(f'{args.root} is not a folder')
    slugs = args.slugs or sorted(p.name for p in args.root.iterdir() if p.is_dir())
    counts = {True: 0, False: 0}
    cases = {slug: sorted((args.root / slug).glob('*.json')) for slug in slugs}
    paths = [path for slug in slugs for path in cases[slug]]
    for slug in slugs:
        if not cases[slug]:
            counts[False] += 1
            print(f'FAIL {slug} - no cases in {args.root / slug}')
    spawn = get_context('spawn')
    with spawn.Pool(args.jobs) if args.jobs > 1 else nullcontext() as pool:
        results = pool.imap(check, paths) if pool else map(check, paths)
        for path, (passed, text, note) in zip(paths, results, strict=True):
            name = f'{path.parent.name} {path.stem}'
            counts[passed] += 1
            print(f'{"PASS" if passed else "FAIL"} {name} {text}', flush=True)
            if note:
                print(f'note {name} {note}', flush=True)
    print(f'{counts[True]} passed, {counts[False]} failed')
    return 0 if counts[True] and not counts[False] else 1


if __name__ == '__main__':
    sys.exit(main())
