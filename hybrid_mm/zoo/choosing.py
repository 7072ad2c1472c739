"""docs/choosing.md: networks by task, size, device and licence, from the figures of the zoo."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybrid_mm.run.published import published_weights
from hybrid_mm.weights import Weights, all_weights
from hybrid_mm.zoo.metafile import MEASURED, Model, Tree
from hybrid_mm.zoo.page import source_type
from hybrid_mm.zoo.recipe_tables import table

NONE = '-'
BUDGETS = (20, 50, 100, None)
"""Parameters of a model in millions, up to which the best is named; None for any number."""
# where the name of a backbone does not begin with that of its family
_FAMILIES = (
    (r'hornet-.*-gf$', 'HorNet-GF'),
    (r'dinat-s-', 'DiNATs'),
    (r'elsa-swin', 'ELSASwin'),
    (r'van-lska', 'VAN-LSKA'),
    (r'(deit|mae|vit)-', 'ViT'),
    (r'qna-', 'QnAViT'),
)


@dataclass(frozen=True)
class Comparison:
    """Models with one head and one length of training, which can be compared.

    Attributes:
        title: Heading of the table.
        head: Their head.
        pattern: Regular expression for their names.
        metrics: Metrics of the table; they are compared by the first.
    """

    title: str
    head: str
    pattern: str
    metrics: tuple[str, ...]


SECTIONS: dict[str, tuple[Comparison, ...]] = {
    'Object detection': (Comparison('RetinaNet, 1x', 'RetinaNet', r'_fpn_1x_coco$', ('box AP',)),),
    'Object detection and instance segmentation': (
        Comparison('Mask R-CNN, 1x', 'Mask R-CNN', r'[_-]1x_coco$', ('mask AP', 'box AP')),
        Comparison('Mask R-CNN, 3x', 'Mask R-CNN', r'[_-]3x_coco$', ('mask AP', 'box AP')),
        Comparison(
            'Cascade Mask R-CNN, 3x', 'Cascade Mask R-CNN', r'[_-]3x_coco$', ('mask AP', 'box AP')
        ),
    ),
    'Semantic segmentation': (
        Comparison('Semantic FPN, ADE20K', 'Semantic FPN', r'_ade20k', ('mIoU',)),
        Comparison(
            'UperNet, ADE20K, 160k iterations',
            'UperNet',
            r'-160k_ade20k',
            ('mIoU', 'mIoU (ms+flip)'),
        ),
    ),
}


@dataclass
class Row:
    """A model with what is known about it.

    Attributes:
        model: The model.
        values: Its accuracies by metric, each with its source.
        start: What its backbone starts from, or None.
        whole: Published weights of the whole model, or None.
    """

    model: Model
    values: dict[str, tuple[float, str]]
    start: Weights | None
    whole: Weights | None

    @property
    def cost(self) -> tuple[float, float]:
        """Parameters, and multiply-adds of a million pixels."""
        height, width = self.model.size
        return self.model.parameters, self.model.flops / (height * width) * 1e6

    @property
    def ready(self) -> bool:
        """Whether weights to start from are downloaded automatically."""
        return any(w is not None and w.case == 'automatic' for w in (self.start, self.whole))


def rows_of(
    models: Iterable[Model], comparison: Comparison, start_of: Callable[[Model], str | None]
) -> list[Row]:
    """Models of a comparison of which the first metric is known, by their cost."""
    found = []
    for model in models:
        if model.head != comparison.head or not re.search(comparison.pattern, model.name):
            continue
        values: dict[str, tuple[float, str]] = {}
        for source, metrics in model.metrics().items():
            for name in comparison.metrics:
                # measured ones come last, and replace those that are quoted
                if name in metrics and (name not in values or source == MEASURED):
                    values[name] = metrics[name], source
        first = values.get(comparison.metrics[0])
        if first is not None and source_type(first[1]) != 'unverified':
            start = all_weights().get(start_of(model) or '')
            found.append(Row(model, values, start, published_weights(model.name)))
    return sorted(found, key=lambda row: row.cost)


def best(rows: Sequence[Row], metric: str) -> list[Row]:
    """Rows that no other surpasses: in accuracy, parameters and multiply-adds."""

    def surpasses(other: Row, row: Row) -> bool:
        one = (*other.cost, -other.values[metric][0])
        two = (*row.cost, -row.values[metric][0])
        return one != two and all(a <= b for a, b in zip(one, two, strict=True))

    return [row for row in rows if not any(surpasses(other, row) for other in rows)]


def page(
    trees: Sequence[Tree],
    start_of: Callable[[Model], str | None],
    exports: Mapping[str, Mapping[str, str]],
    measured: Path,
) -> str:
    """Markdown of the generated part of the page.

    Args:
        trees: Config trees.
        start_of: Name of the weights that a config starts from, or None.
        exports: Table of docs/export.md: cells by family and column.
        measured: Table of ``tools/benchmark.py backbones``, as CSV.
    """
    models = [model for tree in trees for model in tree.models]
    times = _milliseconds(measured)
    short, parts = [], []
    for section, comparisons in SECTIONS.items():
        parts.append(f'## {section}\n')
        for comparison in comparisons:
            metric, rows = comparison.metrics[0], rows_of(models, comparison, start_of)
            ready = [row for row in rows if row.ready]
            kept = {row.model.name for part in (rows, ready) for row in best(part, metric)}
            shown = [row for row in rows if row.model.name in kept]
            short += [[comparison.title, *cells] for cells in _recommended(ready, metric)]
            parts.append(f'### {comparison.title}\n')
            parts.append(f'{len(shown)} of {len(rows)} configs with a known {metric}.\n')
            parts.append(_table(shown, comparison, exports, times))
    head = ['Head', 'Parameters', 'Take', 'Accuracy', 'Million parameters', 'Weights', 'Licence']
    light = _light(models, exports, times)
    return '\n'.join(
        [
            '## In short\n',
            'The most accurate model of each size whose weights are downloaded automatically:\n',
            table(head, short),
            *parts,
            '## Small backbones\n',
            'Backbones up to 12 million parameters with published weights; costs are those of the '
            'classifier for one image.\n',
            light,
        ]
    )


def _recommended(rows: Sequence[Row], metric: str) -> Iterator[list[str]]:
    """For each budget the most accurate row, unless it is that of a smaller one."""
    last = None
    for budget in BUDGETS:
        within = [r for r in rows if budget is None or r.model.parameters <= budget * 1e6]
        if not within:
            continue
        row = max(within, key=lambda r: r.values[metric][0])
        if row is not last:
            limit = f'up to {budget} M' if budget else 'any'
            yield [
                limit,
                _link(row.model),
                _value(row, metric),
                f'{row.model.parameters / 1e6:.1f}',
                _weights(row),
                _licence(row),
            ]
        last = row


def _table(
    rows: Sequence[Row],
    comparison: Comparison,
    exports: Mapping[str, Mapping[str, str]],
    times: Mapping[str, str],
) -> str:
    head = ['Config', *comparison.metrics, 'Parameters (M)', 'GFLOPs per megapixel']
    head += ['Weights', 'Licence', 'ONNX', 'CPU, ms']
    return table(
        head,
        [
            [
                _link(row.model),
                *(_value(row, metric) for metric in comparison.metrics),
                f'{row.cost[0] / 1e6:.1f}',
                f'{row.cost[1] / 1e9:.0f}',
                _weights(row),
                _licence(row),
                _export(row.model.backbone, exports),
                times.get(row.model.backbone, NONE),
            ]
            for row in rows
        ],
    )


def _light(
    models: Iterable[Model], exports: Mapping[str, Mapping[str, str]], times: Mapping[str, str]
) -> str:
    """Classifiers up to 12 million parameters with weights that are downloaded."""
    rows = []
    for model in models:
        weights = published_weights(model.name)
        if model.head != 'Classifier' or model.dataset != 'ImageNet-1k' or weights is None:
            continue
        accuracy = weights.metrics.get('Top 1 Accuracy')
        if weights.case == 'automatic' and accuracy and model.parameters <= 12e6:
            licence = weights.files[0].licence or 'not stated'
            cost = f'{model.parameters / 1e6:.1f}', f'{model.flops / 1e9:.1f}'
            rows.append(
                [
                    f'`{model.backbone}`',
                    f'{accuracy:.1f} (authors)',
                    *cost,
                    licence,
                    _export(model.backbone, exports),
                    times.get(model.backbone, NONE),
                ]
            )
    rows.sort(key=lambda row: float(row[3]))
    head = ['Backbone', 'ImageNet top 1', 'Parameters (M)', 'GFLOPs', 'Licence', 'ONNX', 'CPU, ms']
    return table(head, rows)


def _link(model: Model) -> str:
    return f'[{model.name}](../{model.config})'


def _value(row: Row, metric: str) -> str:
    """An accuracy and where it is from."""
    if metric not in row.values:
        return NONE
    value, source = row.values[metric]
    mark = {'measured': 'measured by us', 'unverified': f'? {source}'}
    return f'{value:.1f} ({mark.get(source_type(source), source)})'.replace('|', r'\|')


def _weights(row: Row) -> str:
    """How weights of the whole model and of the backbone can be had."""
    whole = row.whole.case if row.whole is not None and row.whole.files else 'none'
    start = row.start.case if row.start is not None else 'none'
    return f'whole: {whole}; backbone: {start}'


def _licence(row: Row) -> str:
    """Licences of the weights that can be downloaded, else of those that are published."""
    found = [w for w in (row.whole, row.start) if w is not None and w.files]
    found = [w for w in found if w.case == 'automatic'] or found
    names = dict.fromkeys(w.files[0].licence or 'not stated' for w in found)
    return ', '.join(names) or NONE


def _export(backbone: str, exports: Mapping[str, Mapping[str, str]]) -> str:
    """Whether the backbone exports: at any size, at a fixed one, or not; '-' if nobody tried."""
    special = next((name for pattern, name in _FAMILIES if re.match(pattern, backbone)), None)
    begin = [name for name in exports if backbone.startswith(name.lower())]
    name = special or max(begin, key=len, default='')
    cells = exports.get(name)
    if cells is None or cells['backbone'] == NONE:
        return NONE
    if cells['backbone'].startswith('no'):
        return 'no'
    return 'fixed size' if cells['backbone'].startswith('fixed') else 'any size'


def _milliseconds(file: Path) -> dict[str, str]:
    """Milliseconds of our backbones for four images of 224 x 224, by the name of the backbone."""
    with file.open(newline='') as lines:
        found = {
            row['case'].partition(',')[0].lower(): f'{float(row["inference_ms"]):.0f}'
            for row in csv.DictReader(lines)
            if row['candidate'] == 'ours' and row['case'].endswith(' 4x224x224')
        }
    return found
