#!/usr/bin/env python
"""Compare configs with the ledgers of their trees, or print the values that a ledger repeats.

Example:
    python tools/dev/recipes.py                    differences in all trees
    python tools/dev/recipes.py van                in one
    python tools/dev/recipes.py van --values       every field, its values, and who has them
    python tools/dev/recipes.py van-b0_8xb128_in1k --values

Spelling: values are those of OpenMMLab 1.x configs, arguments in alphabetical order. no_decay lists
the kinds of parameters without weight decay by part; what it does not list decays. lr_mult:
backbone 0.7^(0..13) are powers of a layer decay. drop_path is the largest rate of the backbone.
MMCV 0.x counts the main schedule from iteration 0 below the warm-up, OpenMMLab 1.x from its end:
write the latter.
"""

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool

ROOT = Path(__file__).resolve().parents[2]


def show(paths: Iterable[Path], describe) -> None:
    """Print every field with its values and, where they differ, the configs that have them."""
    fields: dict[str, dict[str, list[str]]] = {}
    for path in paths:
        for field, value in describe(path).items():
            fields.setdefault(field, {}).setdefault(str(value), []).append(path.stem)
    for field, values in fields.items():
        if len(values) == 1:
            print(f'{field}: {next(iter(values))}')
            continue
        print(f'{field}:')
        for value, names in values.items():
            print(f'    {value}\n        {" ".join(names)}')


@tool
def main(argv: list[str] | None = None) -> int:
    """Print; exit status 1 if something differs."""
    parser = options.parser(__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='tree or config')
    parser.add_argument('--values', action='store_true', help='print values, do not compare')
    args = parser.parse_args(argv)

    sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
    warnings.simplefilter('ignore')
    from configs.loading import CONFIGS
    from configs.recipes.compare import built, differences, ours, recipes_in
    from digests import of_configs

    from hybrid_mm.errors import nearest

    trees = [path.parent.name for path in sorted(CONFIGS.glob('*/metafile.yml'))]
    args.names = [Path(name).name.removesuffix('.py') for name in args.names]  # of a path as well
    known = {*trees, *(path.stem for tree in trees for path in (CONFIGS / tree).glob('*.py'))}
    for name in args.names:
        if name not in known:
            parser.error(
                f'no tree with a ledger and no config is called {name}{nearest(name, known)}'
            )
    differ = False
    for tree in trees:
        files = sorted((CONFIGS / tree).glob('*.py'))
        chosen = [f for f in files if not args.names or {tree, f.stem} & set(args.names)]
        if not chosen:
            continue
        # the digest may be old: build what is asked for
        names = {f.stem for f in chosen}
        built(tree).update(recipes_in(of_configs.compute(tree, names)))
        if args.values:
            show(chosen, ours)
            continue
        try:
            lines = list(differences(tree, names))
        except (ValueError, FileNotFoundError) as error:
            lines = [str(error)]
        differ |= bool(lines)
        print(f'{tree}: {len(lines)} differences' if lines else f'{tree}: as the ledger says')
        print('\n'.join(lines))
    return int(differ)


if __name__ == '__main__':
    sys.exit(main())
