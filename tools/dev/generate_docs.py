#!/usr/bin/env python
"""Generate the documents of the model zoo from the metafiles and the ledgers of recipes.

These are README.md of each config tree, docs/model_zoo.md, docs/recipes.md, the page
docs/model_zoo.html, in docs/weights.md the tables of the registry of weights, and in the README of
the project the text between ``<!-- zoo:begin -->`` and ``<!-- zoo:end -->``.

    python tools/dev/generate_docs.py            write all
    python tools/dev/generate_docs.py --check    list the files that are out of date (status 1)

If metafiles or ledgers have mistakes (unknown fields, metrics, configs, ...), these are printed and
nothing is written. ``configs/<tree>/metafile.yml`` is the only place for figures,
``configs/<tree>/recipe.yml`` for the values of recipes with their sources,
``hybrid_mm/weights/published/<tree>.yml`` for where weights are. Results whose ``Source`` is
``measured`` are ours; all others are quoted, and in a table of their own.
"""

import argparse
import functools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hybrid_mm.run.published import published_weights
from hybrid_mm.weights import all_weights, find_weights
from hybrid_mm.zoo import metafile, recipe_tables, recipes, weights_tables
from hybrid_mm.zoo.metafile import GROUPS, MEASURED, Model
from hybrid_mm.zoo.page import page
from hybrid_mm.zoo.recipe_tables import table

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = '<!-- zoo:begin -->', '<!-- zoo:end -->'
GENERATED = '<!-- Written by tools/dev/generate_docs.py from metafile.yml: edit that. -->\n'
HOW = """\
## Train, test, predict

```bash
python tools/train.py {config}
bash tools/dist_train.sh {config} 8
python tools/test.py {config} CHECKPOINT
python tools/predict.py {config} CHECKPOINT IMAGE --out DIR
```

`4xb2` in a name means 4 GPUs with 2 images each; names without it mean 8xb2. If your total batch
size differs, add `--auto-scale-lr`. Data are expected in `data/coco`,
`data/ade/ADEChallengeData2016`, `data/cityscapes` and `data/imagenet`, or in the folders named by
the environment variables `COCO_ROOT`, `ADE_ROOT`, `CITYSCAPES_ROOT` and `IMAGENET_ROOT`
(`--cfg-options data_root=...` has no effect, because the data sets have already read it). COCO
panoptic needs
[panopticapi](https://github.com/cocodataset/panopticapi). `--dry-run` takes one step and estimates
memory and duration; `--tensorboard` and `--wandb` also log there.
"""

# a tree with published weights, and one without
PUBLISHED = """
## Pre-trained weights

COCO and ADE20K models start from the weights below; we host none. `automatic` weights are
downloaded when they are first needed, from where their authors, or whoever converted them,
published them. Save others as `checkpoints/NAME.pth`, in the authors' layout or in ours.
[How it works]({page}).

```bash
python -m hybrid_mm weights get {config}
python tools/train.py {config} --cfg-options model.backbone.init_cfg.checkpoint=FILE
```

The second line starts from your own file in either layout, such as a checkpoint that
`tools/train.py` wrote for an ImageNet config. To train from scratch, add
`--cfg-options model.backbone.init_cfg=None`. Configs that fine-tune a
classifier including its last layer name the weights in `load_from`.

"""
UNPUBLISHED = """
## Pre-trained weights

The weights that the models below start from were not published. Train them with an ImageNet config,
and save the checkpoint as `checkpoints/NAME.pth` or give its path:

```bash
python tools/train.py {config} --cfg-options model.backbone.init_cfg.checkpoint=FILE
```

To train from scratch, add `--cfg-options model.backbone.init_cfg=None`.

"""
# a tree with published detectors, segmenters or classifiers
WHOLE = """
Whole networks are published as well; the tables below link them next to their accuracy. `auto`
stands for the weights of the config:

```bash
python tools/test.py {config} auto
python tools/predict.py {config} auto IMAGE --out DIR
```
"""

COST = """
FLOPs are multiply-adds of convolutions, linear layers and matrix products for one image, counted by
`tools/complexity.py`; two-stage detectors use 1000 RoIs per box head and 100 per mask head.
"""


class Tree(metafile.Tree):
    """A config tree that writes its documents."""

    def tables(self, base: Path, level: str) -> str:
        """Tables of reported and of measured figures, with links relative to ``base``."""
        parts = []
        for heading, ours in (('Reported by the paper', False), ('Measured by us', True)):
            tables = []
            for group in GROUPS:
                models = [m for m in self.models if m.group == group]
                table = self._measured(models, base) if ours else self._reported(models, base)
                if table:
                    tables.append(f'{level}# {group.title}\n\n{table}')
            if tables:
                parts.append(f'{level} {heading}\n\n' + '\n'.join(tables))
        return '\n'.join(parts)

    def _link(self, model: Model, base: Path) -> str:
        target = os.path.relpath(ROOT / model.config, base)
        return f'[{model.name}]({Path(target).as_posix()})'

    def _reported(self, models: list[Model], base: Path) -> str:
        rows = [row for model in models for row in reported(model)]
        names = columns(metrics for *_, metrics, _ in rows)
        weights = ['Weights'] * any(file for *_, file in rows)
        return rows and table(
            ['Config', *names, *weights, 'Source'],
            [
                [self._link(model, base), *(found.get(name, '') for name in names)]
                + [file] * len(weights)
                + [source]
                for model, source, found, file in rows
            ],
        )

    def _measured(self, models: list[Model], base: Path) -> str:
        rows = []
        for model in models:
            metrics = model.metrics().get(MEASURED, {})
            cost = [f'{model.parameters / 1e6:.2f}', f'{model.flops / 1e9:.2f}']
            size = 'x'.join(map(str, model.size))
            rows.append(([self._link(model, base), *cost, size], metrics))
        names = columns(metrics for _, metrics in rows)
        return rows and table(
            ['Config', 'Parameters (M)', 'FLOPs (G)', 'at H x W', *names],
            [[*row, *(metrics.get(name, '') for name in names)] for row, metrics in rows],
        )

    def readme(self) -> str:
        """Text of README.md of the tree."""
        about = self.collection
        code = f', [official code]({about["Code"]["URL"]})' if 'Code' in about else ''
        how = HOW.format(config=self._example(lambda text: True).config) + self._weights()
        return (
            f'{GENERATED}\n# {about["Name"]}\n\n'
            f'[{about["Paper"]["Title"]}]({about["Paper"]["URL"]}){code}\n\n{about["Notes"]}\n'
            + how
            + '\n'
            + self.tables(self.folder, '##')
            + COST
            + self._recipes()
        )

    def _weights(self) -> str:
        """Section on the weights that the configs start from, and those of whole networks."""
        users = Counter(filter(None, (weights_of(ROOT / m.config) for m in self.models)))
        own = [w.name for w in all_weights().values() if w.tree == self.folder.name]
        names = [name for name in dict.fromkeys([*users, *own]) if name in all_weights()]
        found = [w for w in map(find_weights, sorted(names)) if w.of_backbone]
        parts = []
        if users:
            loading = self._example(lambda text: 'hybrid_mm://' in text)
            started = [w for w in found if users[w.name]]
            text = PUBLISHED if any(w.files for w in started) else UNPUBLISHED
            page = Path(os.path.relpath(ROOT / 'docs/weights.md', self.folder)).as_posix()
            parts += [text.format(config=loading.config, page=page)]
            parts += [weights_tables.of_tree(found, users, self._config_link)]
        whole = [m for m in self.models if published_file(m)]
        if whole:
            automatic = [m for m in whole if published_weights(m.name).case == 'automatic']
            dense = [m for m in automatic if m.head != 'Classifier']
            parts.append(WHOLE.format(config=(dense or automatic or whole)[0].config))
        return ''.join(parts)

    def _config_link(self, name: str) -> str:
        (file,) = ROOT.glob(f'configs/*/{name}.py')
        return f'[{name}]({Path(os.path.relpath(file, self.folder)).as_posix()})'

    def _recipes(self) -> str:
        return f'\n{recipe_tables.section(self.ledger)}' if self.ledger else ''

    @functools.cached_property
    def ledger(self) -> recipes.Ledger | None:
        """Ledger of the tree, if it has one."""
        return recipes.read(self.folder) if (self.folder / recipes.FILE).exists() else None

    def _example(self, fits: Callable[[str], bool]) -> Model | None:
        """First config that fits: a Mask R-CNN that others inherit from, a RetinaNet, or any.

        Before those whose weights nobody published come those that start from published ones.
        """
        found = [m for m in self.models if fits(self._text(m))]
        masks = [m for m in found if m.name.startswith('mask-rcnn')]
        bases = [m for m in masks if '_base_ = [' in self._text(m)]
        retinas = [m for m in found if m.name.startswith('retinanet')]
        return min([*bases, *retinas, *found], key=self._effort, default=None)

    @staticmethod
    def _effort(model: Model) -> int:
        """What a user has to do for the weights of a config: nothing, fetch them, train them."""
        known = all_weights().get(weights_of(ROOT / model.config) or '')
        return {'automatic': 0, 'manual': 1}.get(known.case if known else '', 2)

    def _text(self, model: Model) -> str:
        return (ROOT / model.config).read_text()

    def row(self) -> list:
        """Row of the table of all trees."""
        about, counts = self.collection, dict.fromkeys(GROUPS, 0)
        for model in self.models:
            counts[model.group] += 1
        folder = self.folder.relative_to(ROOT).as_posix()
        paper = f'[{about["Paper"]["Title"]}]({about["Paper"]["URL"]})'
        return [f'[{about["Name"]}]({folder})', paper, *counts.values()]


def published_file(model: Model) -> str:
    """Link to the published weights of a config as a whole; empty if there are none."""
    weights = published_weights(model.name)
    return weights_tables.file_link(weights) if weights else ''


def reported(model: Model) -> list[tuple[Model, str, dict[str, float], str]]:
    """Quoted accuracies of a config: their source, they themselves, and the file that has them.

    Published weights whose accuracy is another one (of another program, or of a test of their
    converters) have a line of their own.
    """
    file, weights = published_file(model), published_weights(model.name)
    own = {name: float(value) for name, value in (weights.metrics if weights else {}).items()}
    quoted = {source: found for source, found in model.metrics().items() if source != MEASURED}
    rows = [
        (model, source, found, file if not own or agree(own, found) else '')
        for source, found in quoted.items()
    ]
    if own and file and not any(link for *_, link in rows):
        rows.append((model, 'published weights', own, file))
    return rows


def agree(accuracies: dict[str, float], others: dict[str, float]) -> bool:
    """Whether accuracies are the same to one decimal in what both have."""
    both = accuracies.keys() & others.keys()
    return bool(both) and all(abs(accuracies[name] - others[name]) < 0.051 for name in both)


def weights_page(trees: Sequence[Tree]) -> str:
    """Text of docs/weights.md with its generated parts."""
    page = ROOT / 'docs/weights.md'
    places = {model.name: model.config for tree in trees for model in tree.models}

    def config(name: str) -> str:
        return f'[{name}](../{places[name]})'

    def readme(name: str) -> str:
        return f'[{name}](../configs/{name}/README.md)'

    text = page.read_text()
    for mark, content in (
        ('names', weights_tables.overview(all_weights(), config, readme)),
        ('layouts', weights_tables.layouts()),
    ):
        begin, end = f'<!-- {mark}:begin -->', f'<!-- {mark}:end -->'
        before, rest = text.split(begin)
        text = f'{before}{begin}\n{content}{end}{rest.split(end)[1]}'
    return text


def weights_of(config: Path) -> str | None:
    """Name of the weights that a config, or the sibling that it inherits from, starts from."""
    text = config.read_text()
    own = re.search(r"\bcheckpoint ?= ?'hybrid_mm://([^']+)'", text)
    sibling = re.search(r"^_base_ = '\./(.+)'", text, re.MULTILINE)
    if own or not sibling:
        return own and own[1]
    return weights_of(config.with_name(sibling[1]))


def columns(metrics: Iterable[dict]) -> list[str]:
    """Names of the metrics in the order of their first appearance, boxes before masks."""
    names = dict.fromkeys(name for found in metrics for name in found)
    return sorted(names, key=lambda name: name.startswith('mask'))


def documents() -> dict[Path, str]:
    """Text of every generated file by its path."""
    found = metafile.read_trees(ROOT, Tree)
    result = {tree.folder / 'README.md': tree.readme() for tree in found}
    zoo = [
        GENERATED,
        '# Model zoo\n',
        '[model_zoo.html](model_zoo.html) lets you filter, sort and plot the same figures; open it '
        'in a browser, no server is needed.\n',
    ]
    for tree in found:
        folder = os.path.relpath(tree.folder, ROOT / 'docs')
        zoo += [f'## [{tree.collection["Name"]}]({folder})\n', tree.tables(ROOT / 'docs', '###')]
    result[ROOT / 'docs/model_zoo.md'] = '\n'.join(zoo)
    result[ROOT / 'docs/model_zoo.html'] = page(found)
    result[ROOT / 'docs/weights.md'] = weights_page(found)
    ledgers = {tree.folder.name: tree.ledger for tree in found if tree.ledger}
    result[ROOT / 'docs/recipes.md'] = (
        f'{GENERATED.replace("metafile.yml", "the ledgers, configs/*/recipe.yml")}\n# Recipes\n\n'
        'The sources of the values in the configs: how many values were read in a source, and '
        'which ones differ from it.\ntests/configs/test_recipes.py fails if a value of a config '
        'differs from its ledger.\n\n' + recipe_tables.overview(ledgers)
    )

    readme = (ROOT / 'README.md').read_text()
    if BEGIN in readme and END in readme:
        before, rest = readme.split(BEGIN, 1)
        overview = table(
            ['Configs', 'Paper', *(group.title.replace(': ', ', ') for group in GROUPS)],
            [tree.row() for tree in found],
        )
        link = (
            'Figures: [docs/model_zoo.md](docs/model_zoo.md); open `docs/model_zoo.html` in '
            'a browser to filter, sort\nand plot them.'
        )
        after = rest.split(END, 1)[1]
        result[ROOT / 'README.md'] = f'{before}{BEGIN}\n{overview}\n{link}\n{END}{after}'
    return result


def main(argv: list[str] | None = None) -> int:
    """Write or check the files; exit status 1 if a checked file is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='write nothing')
    check = parser.parse_args(argv).check
    try:
        found = documents()
    except ValueError as error:
        print(error)
        return 1
    stale = 0
    for path, text in found.items():
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        print('out of date:' if check else 'wrote', path.relative_to(ROOT))
    if check and stale:
        print('run: python tools/dev/generate_docs.py')
    return int(check and stale > 0)


if __name__ == '__main__':
    sys.exit(main())
