#!/usr/bin/env python
"""Generate the documents of the model zoo from the metafiles and the ledgers of recipes.

These are README.md of each config tree, docs/model_zoo.md, docs/recipes.md and a page for each tree
in docs/recipes/, the page docs/model_zoo.html, in docs/weights.md the tables of the registry of
weights, and in the README of the project and in the pages of the papers the text between
``<!-- zoo:begin -->`` and ``<!-- zoo:end -->``.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from hybrid_mm.analysis.study import records, systems, tables
from hybrid_mm.export import table as export_table
from hybrid_mm.run.published import published_weights
from hybrid_mm.weights import all_weights, find_weights
from hybrid_mm.zoo import choosing, metafile, recipe_tables, recipes, weights_tables
from hybrid_mm.zoo.metafile import GROUPS, MEASURED, Model
from hybrid_mm.zoo.network_tables import is_dense, networks
from hybrid_mm.zoo.page import page as page_of_all
from hybrid_mm.zoo.recipe_tables import table

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(metafile.__file__).resolve().parents[1]
# columns of the table in the README of the project
MAIN_DATASETS, OTHER_DATASETS = ('COCO', 'ADE20K', 'ImageNet-1k'), 'Other'
BEGIN, END = '<!-- zoo:begin -->', '<!-- zoo:end -->'
GENERATED = '<!-- Written by tools/dev/generate_docs.py from metafile.yml: edit that. -->\n'
HOW = """\
## Commands

```bash
{get}python tools/train.py {config}
bash tools/dist_train.sh {config} 8
python tools/test.py {test}
{predict}```

{weights}`4xb2` in a name means 4 GPUs with 2 images each; names without it mean 8xb2. If your total
batch size differs, add `--auto-scale-lr`. `--dry-run` takes one step and estimates memory and
duration. [Getting started](../../docs/getting_started.md) explains where to put the data.{panoptic}
"""
PREDICT = 'python tools/predict.py {test} IMAGE --out DIR\n'  # of poses, MMPose's inferencer
PANOPTIC = ' COCO panoptic needs\n[panopticapi](https://github.com/cocodataset/panopticapi).'

# a tree with published weights, one without, and one with published detectors or segmenters
PUBLISHED = """\
Backbones start from the weights above. `automatic` weights are downloaded when they are first
needed, from where their authors, or whoever converted them, published them; download `manual` ones
yourself and save them as `checkpoints/NAME.pth` ([Weights by name](../../docs/weights.md)). To
start from your own file, add `--cfg-options model.backbone.init_cfg.checkpoint=FILE`; to train
from scratch, `--cfg-options model.backbone.init_cfg=None`.

"""
UNPUBLISHED = """\
The weights that the models start from were not published. Train the ImageNet config first, and
save its checkpoint as `checkpoints/NAME.pth` or add
`--cfg-options model.backbone.init_cfg.checkpoint=FILE`. To train from scratch, add
`--cfg-options model.backbone.init_cfg=None`.

"""
WHOLE = """\
`auto` stands for the published weights of the config, which are linked in the results; with other
configs, give a checkpoint file instead.

"""

COST = """
Parameters and FLOPs are counted by us with `tools/complexity.py`. FLOPs are multiply-adds of
convolutions, linear layers and matrix products for one image; two-stage detectors use 1000 RoIs per
box head and 100 per mask head. Accuracies are reported by the named source{ours}.
"""
STUDY = """\
## Measured by us: small networks from scratch on one recipe

Trained for minutes on one CPU core: [the page of the study](study.md) says what that can tell. mIoU
on CamVid at 240 x 320 and box mAP on drawn shapes, in per cent.
"""
PAPERS = {
    'van': ('van', 'pose'),
    'vit': ('vit', 'vitdet'),
}  # pages that show other trees than that of their name


class Tree(metafile.Tree):
    """A config tree that writes its documents."""

    def tables(self, base: Path, level: str) -> str:
        """Tables of the results with links relative to ``base``, one for each group."""
        parts = []
        for group in GROUPS:
            models = [m for m in self.models if m.group == group]
            if models:
                parts.append(f'{level} {group.title}\n\n{self._results(models, base)}')
        return '\n'.join(parts)

    def link(self, model: Model, base: Path, text: str = '') -> str:
        """Link to the config of a model."""
        target = os.path.relpath(ROOT / model.config, base)
        return f'[{text or model.name}]({Path(target).as_posix()})'

    def _results(self, models: list[Model], base: Path) -> str:
        """A line for each model and source, with the costs in the first one of the model."""
        lines = []
        for model in models:
            size = 'x'.join(map(str, model.size))
            cost = [f'{model.parameters / 1e6:.2f}', f'{model.flops / 1e9:.2f}', size]
            ours = model.metrics().get(MEASURED)
            rows = reported(model) + [(model, 'measured by us', ours, '')] * bool(ours)
            for _, source, found, file in rows or [(model, '', {}, published_file(model))]:
                lines.append(([self.link(model, base), *cost], found, [file, source]))
                cost = ['', '', '']
        names = columns(found for _, found, _ in lines)
        kept = [i for i in (0, 1) if any(tail[i] for *_, tail in lines)]
        return table(
            [
                *('Config', 'Parameters (M)', 'FLOPs (G)', 'at H x W', *names),
                *(('Weights', 'Source')[i] for i in kept),
            ],
            [
                [*start, *(found.get(name, '') for name in names), *(tail[i] for i in kept)]
                for start, found, tail in lines
            ],
        )

    def readme(self) -> str:
        """Text of README.md of the tree: results, weights, commands, recipes."""
        about, folder = self.collection, self.folder.name
        pages = [page for page in paper_pages() if folder in trees_of(page)]
        how = ''.join(
            f'How it works: [docs/papers/{page.name}](../../docs/papers/{page.name}).\n\n'
            for page in pages
        )
        ours = any(MEASURED in m.metrics() for m in self.models)
        return (
            f'{GENERATED}\n# {about["Name"]}\n\n'
            f'{self.references}{chr(10) * 2 * bool(self.references)}{about["Notes"]}\n'
            f'{how}## Results\n\n{self.tables(self.folder, "###")}'
            + COST.format(ours=' or, where it says so, measured by us' * ours)
            + self._weights()
            + f'\n{self._commands()}'
            + self._recipes()
        )

    @functools.cached_property
    def starts(self) -> dict[str, str]:
        """Names of the weights that the configs start from, by the name of the config."""
        found = {m.name: weights_of(ROOT / m.config) for m in self.models}
        return {name: weights for name, weights in found.items() if weights}

    def _weights(self) -> str:
        """Section on the weights that the configs start from."""
        users = Counter(self.starts.values())
        own = [w.name for w in all_weights().values() if w.tree == self.folder.name]
        names = [name for name in dict.fromkeys([*users, *own]) if name in all_weights()]
        found = [w for w in map(find_weights, sorted(names)) if w.of_backbone]
        if not users:
            return ''
        return '\n## Weights\n\n' + weights_tables.of_tree(found, users, self.config_link)

    def _commands(self) -> str:
        """Section on how to get the weights, train, test and predict."""
        config = (self.example(lambda m: m.name in self.starts) or self.example()).config
        published = any(all_weights()[n].files for n in self.starts.values() if n in all_weights())
        parts = [(PUBLISHED if published else UNPUBLISHED) * bool(self.starts)]
        if self.whole():
            parts.append(WHOLE)
        get = f'python -m hybrid_mm weights get {config}\n' * published
        test = f'{self.whole()} auto' if self.whole() else f'{config} CHECKPOINT'
        poses = all(m.group.key == 'pose' for m in self.models)
        predict = '' if poses else PREDICT.format(test=test)
        panoptic = PANOPTIC * any('panoptic' in m.name for m in self.models)
        return HOW.format(
            config=config,
            get=get,
            test=test,
            predict=predict,
            weights=''.join(parts),
            panoptic=panoptic,
        )

    def whole(self) -> str:
        """A config whose own weights are published, a dense and automatic one first, or ''."""
        whole = [m for m in self.models if published_file(m)]
        automatic = [m for m in whole if published_weights(m.name).case == 'automatic']
        dense = [m for m in automatic if m.head != 'Classifier']
        return next((m.config for m in [*dense, *automatic, *whole]), '')

    def config_link(self, name: str, base: Path | None = None, text: str = '') -> str:
        """Link to a config by its name."""
        (file,) = ROOT.glob(f'configs/*/{name}.py')
        return f'[{text or name}]({Path(os.path.relpath(file, base or self.folder)).as_posix()})'

    def _recipes(self) -> str:
        if not self.ledger:
            return ''
        name = self.folder.name
        return (
            f'\n## Recipes\n\n{self.recipe_summary(self.ledger.recipes)}\n'
            f'Every value with its source: '
            f'[docs/recipes/{name}.md](../../docs/recipes/{name}.md).\n'
        )

    def recipe_summary(self, shown: Iterable[recipes.Recipe]) -> str:
        """Table of recipes of the ledger."""
        backbones = {m.name: m.backbone for m in self.models}
        return recipe_tables.summary(self.ledger, shown, lambda name: backbones.get(name, name))

    def for_page(self, base: Path) -> str:
        """What the page of the paper shows: networks that detect or segment, weights, recipes."""
        dense = {m.name for m in self.models if is_dense(m)}
        name = self.folder.name
        ordered = sorted(self.models, key=lambda m: m.parameters)
        shown = [self.starts[m.name] for m in ordered if m.name in dense and m.name in self.starts]
        shown = [find_weights(w) for w in dict.fromkeys(shown) if w in all_weights()]
        parts = [
            networks(self.models, lambda m, text: self.link(m, base, text), self.starts),
            weights_tables.of_page(shown, lambda n, text: self.config_link(n, base, text)),
        ]
        example = self.example(lambda m: m.name in dense and m.name in self.starts)
        example = example or self.example(lambda m: m.name in dense)
        lines = [f'python tools/train.py {example.config}']
        start = all_weights().get(self.starts.get(example.name, ''))
        if start and start.case == 'automatic':
            lines.insert(0, f'python -m hybrid_mm weights get {start.name}')
        whole = self.whole()
        if Path(whole).stem in dense:
            lines.append(f'python tools/test.py {whole} auto')
        parts.append('```bash\n' + '\n'.join(lines) + '\n```\n')
        ledger = self.ledger
        recipes_shown = [r for r in ledger.recipes if dense.intersection(ledger.configs_of(r))]
        parts += [
            self.recipe_summary(recipes_shown),
            f'[Every value of these recipes, with its source](../recipes/{name}.md).\n',
        ]
        return '\n'.join(filter(None, parts))

    def recipes_page(self) -> str:
        """Text of the page of all values of the recipes."""
        name = self.folder.name
        return (
            f'{GENERATED.replace("metafile.yml", f"configs/{name}/recipe.yml")}\n'
            f'# Recipes: {self.collection["Name"]}\n\n'
            f'Configs and results: [configs/{name}](../../configs/{name}/README.md).\n'
            + recipe_tables.section(self.ledger)
        )

    @functools.cached_property
    def ledger(self) -> recipes.Ledger | None:
        """Ledger of the tree, if it has one."""
        return recipes.read(self.folder) if (self.folder / recipes.FILE).exists() else None

    def example(self, fits: Callable[[Model], bool] = lambda model: True) -> Model | None:
        """First config that fits: a Mask R-CNN that others inherit from, a RetinaNet, or any.

        Before those whose weights nobody published come those that start from published ones.
        """
        found = sorted(filter(fits, self.models), key=lambda m: (not m.results, m.parameters))
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
        """Row of the table of all trees: the paper, and how many configs there are."""
        counts = Counter(
            model.group.dataset if model.group.dataset in MAIN_DATASETS else OTHER_DATASETS
            for model in self.models
        )
        paper = f'[{self.paper[0]}]({self.paper[1]})' if self.paper else ''
        link = f'[{self.collection["Name"]}]({self.folder.relative_to(ROOT).as_posix()})'
        return [link, paper, *(counts[d] or '' for d in (*MAIN_DATASETS, OTHER_DATASETS))]


def paper_pages() -> list[Path]:
    """Pages of the papers."""
    return [p for p in sorted((ROOT / 'docs/papers').glob('*.md')) if p.stem != 'index']


def trees_of(page: Path) -> tuple[str, ...]:
    """Names of the trees that the page of a paper shows."""
    return PAPERS.get(page.stem, (page.stem,))


def paper_page(page: Path, trees: Mapping[str, Tree]) -> str:
    """Text of the page of a paper with its generated part.

    Raises:
        ValueError: The marks of that part are missing.
    """
    text = page.read_text()
    parts = [trees[name].for_page(page.parent) for name in trees_of(page)]
    links = reference(page, text)
    parts += [links] if links else []
    return between(page, text, '## Networks, weights, recipes\n\n' + '\n'.join(parts))


REFERENCE = {
    # pages of docs/api, and the files whose public names they show
    'backbones': 'backbones/__init__.py',
    'plugins': 'plugins/__init__.py',
    'layers': 'layers/__init__.py',
    'openmmlab': 'openmmlab/*.py',
    'ops': 'ops/**/*.py',
}
USE = re.compile(
    r"type='hybrid_mm\.(\w+)'|from hybrid_mm\.\S+ import (.+)|`hybrid_mm\.ops\.\S*?(\w+)\("
)


@functools.cache
def public_names() -> dict[str, str]:
    """Links to the public names of what networks are made of, relative to docs/api/."""
    found: dict[str, str] = {}
    for page, pattern in REFERENCE.items():
        for file in sorted(PACKAGE.glob(pattern)):
            module = '.'.join(file.relative_to(PACKAGE.parent).with_suffix('').parts)
            listed = re.search(r'^__all__ = \[(.*?)\]', file.read_text(), re.MULTILINE | re.DOTALL)
            for name in re.findall(r"'(\w+)'", listed[1] if listed else ''):
                found.setdefault(name, f'{page}.md#{module.removesuffix(".__init__")}.{name}')
    return found


def reference(page: Path, text: str) -> str:
    """Links to the API reference of the classes and functions that a page uses; or empty."""
    used = [
        name.strip()
        for groups in USE.findall(text)
        for name in ','.join(groups).split(',')
        if name.strip() in public_names()
    ]
    folder = Path(os.path.relpath(ROOT / 'docs/api', page.parent)).as_posix()
    links = [f'[{name}]({folder}/{public_names()[name]})' for name in dict.fromkeys(used)]
    return f'API reference: {", ".join(links)}.\n' if links else ''


def between(file: Path, text: str, content: str) -> str:
    """Text of a file with other content between its marks."""
    if BEGIN not in text or END not in text:
        raise ValueError(
            f'{file.relative_to(ROOT)}: put {BEGIN} and {END} on lines of their own to where the '
            'generated tables belong'
        )
    before, rest = text.split(BEGIN, 1)
    return f'{before}{BEGIN}\n{content}{END}{rest.split(END, 1)[1]}'


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


def choosing_page(trees: Sequence[Tree]) -> str:
    """Text of docs/choosing.md with its generated part."""
    content = choosing.page(
        trees,
        lambda model: weights_of(ROOT / model.config),
        export_table.TABLE.read(ROOT / 'docs/export.md'),
        ROOT / 'docs/benchmarks/backbones.csv',
    )
    before, rest = (ROOT / 'docs/choosing.md').read_text().split('<!-- choosing:begin -->')
    after = rest.split('<!-- choosing:end -->')[1]
    return f'{before}<!-- choosing:begin -->\n{content}<!-- choosing:end -->{after}'


def study() -> str:
    """Section with the figures of docs/study.md, which are ours."""
    own = [s for s in systems.find().values() if not (s.peer_of or s.only_pair)]
    digests = {
        (task, system.name, 0): systems.digest(systems.compose(system, task))
        for task in systems.TASKS
        for system in own
    }
    found = records.read(ROOT / 'configs/study/results.json')
    return f'{STUDY}\n{tables.summary(own, found, digests)}\n'


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
        '[model_zoo.html](model_zoo.html) has the same figures to filter, sort and plot; it opens '
        'from the disk.\n',
    ]
    for tree in found:
        folder = os.path.relpath(tree.folder, ROOT / 'docs')
        links = [f'[configs]({folder}/README.md)']
        links += [f'[recipes](recipes/{tree.folder.name}.md)'] * bool(tree.ledger)
        links += [
            f'[how it works](papers/{page.name})'
            for page in paper_pages()
            if tree.folder.name in trees_of(page)
        ]
        zoo += [
            f'## {tree.collection["Name"]}\n\n{", ".join(links)}\n',
            tree.tables(ROOT / 'docs', '###'),
        ]
    zoo.append(COST.format(ours='').lstrip())
    zoo.append(study())
    result[ROOT / 'docs/model_zoo.md'] = '\n'.join(zoo)
    result[ROOT / 'docs/model_zoo.html'] = page_of_all(found)
    result[ROOT / 'docs/weights.md'] = weights_page(found)
    result[ROOT / 'docs/choosing.md'] = choosing_page(found)
    ledgers = {tree.folder.name: tree.ledger for tree in found if tree.ledger}
    result[ROOT / 'docs/recipes.md'] = (
        f'{GENERATED.replace("metafile.yml", "the ledgers, configs/*/recipe.yml")}\n# Recipes\n\n'
        'The sources of the values in the configs: how many values were read in a source, and '
        'which ones differ from it.\ntests/configs/test_recipes.py fails if a value of a config '
        'differs from its ledger.\n\n'
        + recipe_tables.overview(ledgers)
        + '\n```{toctree}\n:hidden:\n\n'
        + ''.join(f'recipes/{name}\n' for name in ledgers)
        + '```\n'
    )
    by_name = {tree.folder.name: tree for tree in found}
    for name in ledgers:
        result[ROOT / f'docs/recipes/{name}.md'] = by_name[name].recipes_page()
    for page in paper_pages():
        if by_name.keys() >= set(trees_of(page)):
            result[page] = paper_page(page, by_name)

    readme = (ROOT / 'README.md').read_text()
    if BEGIN in readme and END in readme:
        overview = table(
            ['Configs', 'Paper', *MAIN_DATASETS, OTHER_DATASETS],
            [tree.row() for tree in found],
        )
        link = (
            'Figures: [docs/model_zoo.md](docs/model_zoo.md); open `docs/model_zoo.html` in '
            'a browser to filter, sort\nand plot them.'
        )
        content = f'{overview}\n{link}\n'
        result[ROOT / 'README.md'] = between(ROOT / 'README.md', readme, content)
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
