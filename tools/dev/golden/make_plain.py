"""Make stored cases of whole networks with outputs computed by plain formulas of the papers.

    python tools/dev/golden/make_plain.py [SLUG ...]
    python tools/dev/golden/make_plain.py --compare ROOT [SLUG ...]

The second form only compares the formulas with the cases of the authors' code in ROOT.
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from case import Weights, draw_input, save  # noqa: E402

REFERENCE = 'plain formulas of the paper in float64, tools/dev/golden/plain'


def compare(root: Path, slug: str, module) -> None:
    """Print the relative errors of the formulas on the cases of the authors' code."""
    for name, run in module.KNOWN.items():
        path = root / slug / f'{name}.json'
        case, tensors = json.loads(path.read_text()), load_file(path.with_suffix('.safetensors'))
        p = Weights(given={k[7:]: v for k, v in tensors.items() if k.startswith('weight/')})
        outputs = run(p, tensors['input'].double(), case['config'])
        errors = []
        for i, out in enumerate(outputs):
            expected = tensors[f'output/{i}'].double()
            errors.append(((out - expected).abs().max() / expected.abs().max()).item())
        if f'output/{len(outputs)}' in tensors:
            errors.append('the rest of the outputs is not compared')
        else:
            p.done()
        text = ' '.join(e if isinstance(e, str) else f'{e:.1e}' for e in errors)
        print(f'{slug} {name}: {text}', flush=True)


def _named(weights: dict, case: dict) -> dict:
    """Rename torchvision's ResNet keys to ours, for a network without a published layout."""
    if not case.get('own'):
        return weights
    rules = [
        (r'conv1\.weight', r'stem.conv.weight'),
        (r'bn1\.(\w+)', r'stem.norm.\1'),
        (r'(.*\.)bn(\d)\.(\w+)', r'\1norm\2.\3'),
        (r'(.*\.)downsample\.0\.(\w+)', r'\1shortcut.conv.\2'),
        (r'(.*\.)downsample\.1\.(\w+)', r'\1shortcut.norm.\2'),
    ]
    out = {}
    for key, value in weights.items():
        for old, new in rules:
            if match := re.fullmatch(old, key):
                key = match.expand(new)
                break
        key = re.sub(r'^layer(\d)\.(\d)', lambda m: f'stages.{int(m[1]) - 1}.blocks.{m[2]}', key)
        out[f'own/{key}'] = value
    return out


def make(slug: str, module) -> None:
    """Write the cases of a slug."""
    for name, case in module.CASES.items():
        p = Weights(case['seed'])
        save(
            slug,
            name,
            lambda x, p=p, case=case: case['forward'](p, x),
            draw_input(case['shape'], case['seed'] + 1000),
            lambda p=p, case=case: _named(p.used, case),
            case.get('module') or f'hybrid_mm.{case["network"]}',  # a published name, or ours
            case['config'],
            REFERENCE,
            case.get('notes', ''),
        )


def main(argv: list[str] | None = None) -> None:
    """Make cases, or compare the formulas with stored ones."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--compare', type=Path, metavar='ROOT', help='compare the formulas with the cases there'
    )
    parser.add_argument('slugs', nargs='*', help='only these (default: all)')
    args = parser.parse_args(argv)
    slugs = args.slugs or sorted(
        path.stem for path in (HERE / 'plain').glob('*.py') if 'CASES' in path.read_text()
    )
    for slug in slugs:
        module = importlib.import_module(f'plain.{slug}')
        if args.compare:
            with torch.no_grad():
                compare(args.compare, slug, module)
        else:
            make(slug, module)


if __name__ == '__main__':
    main()
