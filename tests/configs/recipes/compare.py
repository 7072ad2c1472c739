"""Compares configs with the ledgers of their trees."""

import functools
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from hybrid_mm.zoo import recipes

from ..loading import CONFIGS, look_at
from .describe import Recipe, describe

# before tools/dev, where a tool has the name of that package
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from digests import stored
from digests.built_recipe import PREFIX
from digests.stored import Digest


@functools.cache
def built(tree: str) -> dict[str, Recipe]:
    """Values that follow from the models of a tree, by config, as its digest has them.

    ``tests/digests`` compares the digest with the models.
    """
    return recipes_in(stored.decode(stored.path_of(f'configs/{tree}').read_text()))


def recipes_in(digest: Digest) -> dict[str, Recipe]:
    """What a digest tells of the recipes of its configs."""
    return {
        name: {k.removeprefix(PREFIX): v for k, v in section.items() if k.startswith(PREFIX)}
        for name, section in digest.items()
    }


def ours(path: Path) -> Recipe:
    """All values of a config."""
    return describe(look_at(path)) | built(path.parent.name).get(path.stem, {})


def differences(tree: str, names: Collection[str] | None = None) -> Iterator[str]:
    """What the configs of a tree, or those named, and its ledger tell differently.

    Raises:
        ValueError: The ledger has mistakes.
    """
    ledger = recipes.read(CONFIGS / tree)
    for path in sorted((CONFIGS / tree).glob('*.py')):
        if names is not None and path.stem not in names:
            continue
        found = ours(path)
        recipe = ledger.recipe_of(path.stem)
        told = recipe.of(path.stem)
        for field in {**told, **found}:
            prefix = f'{path.stem} ({recipe.name}): {field}'
            if field not in found:
                yield f'{prefix} is in the ledger, which no such config has'
            elif field not in told:
                yield f'{prefix} is not in the ledger; ours: {found[field]}'
            elif not recipes.same(told[field].ours, found[field]):
                yield f'{prefix}\n    ledger: {told[field].ours}\n    config: {found[field]}'
            elif told[field].state == 'Different' and recipes.same(
                told[field].ours, told[field].official
            ):
                yield f'{prefix} is Different, but the values are the same'
