"""One self-contained HTML page of the results that the analyses wrote."""

import base64
import html
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path

from hybrid_mm.analysis import comparison_report, corruption_study
from hybrid_mm.analysis.comparison import Entry
from hybrid_mm.errors import UserError

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #202024; max-width: 1200px;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e8; }
th:first-child, td:first-child { text-align: left; }
td.best { font-weight: bold; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
figcaption, .note { color: #606068; font-size: .9rem; }
nav a { margin-right: 1rem; }
"""
STUDIES = {
    'robustness': 'Corruption robustness',
    'receptive_field': 'Effective receptive field',
    'shape_texture': 'Shape and texture dimensions',
    'texture_knn': 'Texture classification by nearest neighbours',
    'kernel_size': 'Kernel size',
    'comparison': 'Comparison of models',
}


class Result:
    """Result file and pictures that one run of an analysis tool wrote to a folder.

    Attributes:
        folder: The folder.
        content: Content of the JSON file.
        study: Key of ``STUDIES``; ``kind`` in the file.
    """

    def __init__(self, file: Path) -> None:
        self.folder = file.parent
        try:
            self.content = json.loads(file.read_text())
            self.study = str(self.content['kind'])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f'{file} is not a result of an analysis: {error!r}') from error

    @property
    def pictures(self) -> list[Path]:
        """Pictures of the run."""
        return sorted(self.folder.glob('*.png'))


def collect(folders: Iterable[str | Path]) -> dict[str, list[Result]]:
    """Find the results below folders, by study.

    Raises:
        UserError: A folder does not exist or holds no results, or a result is broken.
    """
    found: dict[str, list[Result]] = {study: [] for study in STUDIES}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f'{folder} does not exist; expected a folder of results')
        files = sorted(path for study in STUDIES for path in folder.rglob(f'{study}.json'))
        if not files:
            names = ', '.join(f'{study}.json' for study in STUDIES)
            raise UserError(
                f'{folder} holds no results ({names}); run the tools in tools/analysis first'
            )
        for file in files:
            result = Result(file)
            if result.study not in found:
                raise UserError(f'{file}: unknown kind of result {result.study!r}')
            found[result.study].append(result)
    return {study: results for study, results in found.items() if results}


def _text(value, digits: int = 4) -> str:
    if value is None:
        return '–'  # noqa: RUF001  (a dash in a table)
    return (
        f'{value:.{digits}g}'
        if isinstance(value, float)
        else f'{value:,}'
        if isinstance(value, int)
        else str(value)
    )


def _table(
    head: Sequence[str], rows: Sequence[Sequence], best: dict[int, Callable] | None = None
) -> str:
    """HTML table; in the columns of ``best`` the largest (``max``) or smallest value is bold."""
    chosen = {}
    for column, choose in (best or {}).items():
        values = [row[column] for row in rows if isinstance(row[column], (int, float))]
        if len(values) > 1:
            chosen[column] = choose(values)
    lines = ['<table><thead><tr>']
    lines += [f'<th>{html.escape(str(name))}</th>' for name in head]
    lines.append('</tr></thead><tbody>')
    for row in rows:
        cells = []
        for i, value in enumerate(row):
            mark = ' class="best"' if i in chosen and value == chosen[i] else ''
            cells.append(f'<td{mark}>{html.escape(_text(value))}</td>')
        lines.append(f'<tr>{"".join(cells)}</tr>')
    lines.append('</tbody></table>')
    return ''.join(lines)


def _picture(data: bytes, caption: str) -> str:
    text = base64.b64encode(data).decode()
    caption = html.escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{text}">'
        f'<figcaption>{caption}</figcaption></figure>'
    )


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _pictures(results: Sequence[Result]) -> list[str]:
    return [
        _picture(file.read_bytes(), f'{result.folder.name}: {file.stem.replace("_", " ")}')
        for result in results
        for file in result.pictures
    ]


def _robustness(results: Sequence[Result], scratch: Path) -> list[str]:
    studies = {}
    for result in results:
        content = result.content
        name = content.get('label') or result.folder.name
        while name in studies:
            name = f'{name} ({result.folder.name})'
        studies[name] = content
    parts = []
    metrics = dict.fromkeys(m for content in studies.values() for m in content['summary'])
    for metric in metrics:
        summaries = {n: c['summary'].get(metric, {}) for n, c in studies.items()}
        keys = list(dict.fromkeys(key for row in summaries.values() for key in row))
        rows = [[name, *(row.get(key) for key in keys)] for name, row in summaries.items()]
        best = {i: min if key.startswith('mCE') else max for i, key in enumerate(keys, 1)}
        parts += [f'<h3>{html.escape(metric)}</h3>', _table(['model', *keys], rows, best)]
    found = {name: content['results'] for name, content in studies.items()}
    others = [
        [name, data, value]
        for name, content in found.items()
        for data in corruption_study.SHIFTED
        for value in content.get(data, {}).get('0', {}).values()
    ]
    if others:
        parts.append(_table(['model', 'data set', 'top-1 accuracy'], others))
    groups = {}
    for name, content in found.items():
        groups.setdefault(corruption_study.main_metric(content), {})[name] = content
    for metric, models in groups.items():
        names = [n for n in corruption_study.CORRUPTIONS if any(n in c for c in models.values())]
        rows = []
        for corruption in names:
            means = [
                corruption_study.mean_over_severities(c, corruption, metric)
                for c in models.values()
            ]
            rows.append([corruption, *means])
        parts += [
            f'<h3>{html.escape(metric)}, mean over the severities</h3>',
            _table(['corruption', *models], rows),
        ]
        if len(models) > 1:
            picture = scratch / 'curves.png'
            corruption_study.draw_curves(models, picture)
            parts.append(_picture(picture.read_bytes(), f'{metric} of all models over severity'))
    return parts


def _receptive_field(content: dict) -> list[str]:
    models = content['models']
    thresholds = list(dict.fromkeys(t for m in models for t in m['squares']))
    rows = []
    for model in models:
        cells = []
        for t in thresholds:
            value = model['squares'].get(t)
            cells.append(value and f'{value[0]} px, {100 * value[1]:.1f}%')
        rows.append([model['label'], *cells, model['images'], model['weights']])
    head = ['model', *(f'{100 * float(t):g}%' for t in thresholds), 'images', 'weights']
    height, width = content['size']
    note = f'Side and share of the centred square; images of {height} x {width}.'
    return [_note(note), _table(head, rows)]


def _shape_texture(content: dict) -> list[str]:
    names = ('shape', 'texture', 'residual')
    rows = [
        [m['label'], m['neurons'], *(m['percent'][n] for n in names), m['weights']]
        for m in content['models']
    ]
    note = (
        f'{content["images"]} images, scores {content["normalise"]}, means over '
        f'{content["seeds"]} choices of partners.'
    )
    head = ['model', 'neurons', *(f'{n}, %' for n in names), 'weights']
    return [_note(note), _table(head, rows)]


def _texture_knn(content: dict) -> list[str]:
    splits = list(dict.fromkeys(s for m in content['models'] for s in m['splits']))
    rows = [
        [m['label'], *(m['splits'].get(s) for s in splits), m['mean'], m['weights']]
        for m in content['models']
    ]
    note = (
        f'k = {content["k"]}, {content["metric"]}; {content["images"]} images of '
        f'{content["classes"]} classes.'
    )
    head = ['model', *(f'split {s}' for s in splits), 'mean', 'weights']
    return [_note(note), _table(head, rows, {len(splits) + 1: max})]


def _kernel_size(content: dict) -> list[str]:
    keys = {
        'params': 'parameters',
        'macs': 'multiply-adds',
        'inference_ms': 'forward, ms',
        'training_ms': 'with backward, ms',
        'inference_peak': 'peak bytes, forward',
        'training_peak': 'peak bytes, with backward',
        'accuracy': 'top-1',
    }
    points = content['points']
    shown = {k: v for k, v in keys.items() if any(p[k] is not None for p in points)}
    rows = [[p['family'], p['kernel_size'], *(p[k] for k in shown)] for p in points]
    height, width = content['shape']
    text = '; '.join(f'{k} {v}' for k, v in content['environment'].items())
    note = f'{content["arch"]}, {height} x {width}, batches of {content["batch"]}. {text}.'
    return [_note(note), _table(['family', 'k', *shown.values()], rows)]


def _comparison(content: dict) -> list[str]:
    entries = [Entry(**model) for model in content['models']]
    head, rows = comparison_report.table(entries)
    text = '; '.join(f'{k} {v}' for k, v in content['environment'].items())
    notes = [comparison_report.conditions(content['settings']), f'{text}.']
    notes += comparison_report.notes(entries)
    return [_table(head, rows), *map(_note, notes)]


# sections that show one result after the other; that of robustness compares all models
_SECTIONS = {
    'receptive_field': _receptive_field,
    'shape_texture': _shape_texture,
    'texture_knn': _texture_knn,
    'kernel_size': _kernel_size,
    'comparison': _comparison,
}


def _section(study: str, results: Sequence[Result], scratch: Path) -> list[str]:
    if study == 'robustness':
        parts = _robustness(results, scratch)
    else:
        parts = [part for result in results for part in _SECTIONS[study](result.content)]
    return parts + _pictures(results)


def page(found: dict[str, list[Result]], title: str, scratch: Path) -> str:
    """Return the HTML of the page.

    Args:
        found: Result of :func:`collect`.
        title: Title of the page.
        scratch: Folder for temporary pictures.

    Raises:
        UserError: A result file is incomplete.
    """
    parts = []
    for study, results in found.items():
        try:
            section = _section(study, results, scratch)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            where = ', '.join(str(result.folder) for result in results)
            raise UserError(f'results of {study} in {where} are incomplete: {error!r}') from error
        parts += [f'<section id="{study}"><h2>{STUDIES[study]}</h2>', *section, '</section>']
    links = ''.join(f'<a href="#{study}">{STUDIES[study]}</a>' for study in found)
    title = html.escape(title)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        f'<p class="note">{date.today().isoformat()}</p><nav>{links}</nav>'
        f'{"".join(parts)}</body></html>\n'
    )
