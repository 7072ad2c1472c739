"""``metafile.yml`` of the config trees: reading and validation.

The metafiles hold all figures of the zoo: parameters and multiply-adds counted by us, and
accuracies with their source. Results with the source ``measured`` are ours, all others are quoted.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from hybrid_mm.errors import nearest
from hybrid_mm.zoo.yaml_files import read_yaml

MEASURED = 'measured'

_BOX, _MASK = (
    tuple(f'{task} {name}' for name in ('AP', 'AP50', 'AP75', 'AP small', 'AP medium', 'AP large'))
    for task in ('box', 'mask')
)
METRICS = {
    'Object Detection': _BOX,
    'Instance Segmentation': _MASK,
    'Panoptic Segmentation': ('PQ', 'PQ things', 'PQ stuff', 'SQ', 'RQ'),
    'Human Pose': ('keypoint AP', 'keypoint AP50', 'keypoint AP75', 'keypoint AR'),
    'Semantic Segmentation': ('mIoU', 'mIoU (ms+flip)', 'mAcc', 'aAcc'),
    'Image Classification': ('Top 1 Accuracy', 'Top 5 Accuracy'),
}
"""Tasks, and the names of their metrics; all are percentages."""

MAIN_METRICS = (
    *('box AP', 'mask AP', 'PQ', 'keypoint AP', 'mIoU', 'mIoU (ms+flip)', 'Top 1 Accuracy'),
)
"""Metrics of lists and of the page; the README of each tree has all of them."""

DATASETS = {
    'COCO': ('Object Detection', 'Instance Segmentation', 'Panoptic Segmentation', 'Human Pose'),
    'ADE20K': ('Semantic Segmentation', 'Instance Segmentation', 'Panoptic Segmentation'),
    'Cityscapes': ('Semantic Segmentation', 'Instance Segmentation'),
    'Pascal VOC': ('Semantic Segmentation',),
    'ImageNet-1k': ('Image Classification',),
    'ImageNet-22k': ('Image Classification',),
    'CIFAR-10': ('Image Classification',),
    'HAM10000': ('Image Classification',),
}
"""Data sets, and the tasks on them."""


class Group(NamedTuple):
    """Models that are compared in one table.

    Attributes:
        key: Short name.
        title: Title of the table.
        dataset: Training data.
        tasks: Tasks of the models; where there are none, it is the table of all others.
    """

    key: str
    title: str
    dataset: str
    tasks: tuple[str, ...] = ()


GROUPS = (
    Group('detection', 'COCO: detection and instance segmentation', 'COCO'),
    Group('panoptic', 'COCO: panoptic segmentation', 'COCO', ('Panoptic Segmentation',)),
    Group('pose', 'COCO: human pose', 'COCO', ('Human Pose',)),
    Group('segmentation', 'ADE20K: semantic segmentation', 'ADE20K'),
    Group(
        'objects',
        'ADE20K: instance and panoptic segmentation',
        'ADE20K',
        ('Instance Segmentation', 'Panoptic Segmentation'),
    ),
    Group('cityscapes', 'Cityscapes: semantic and instance segmentation', 'Cityscapes'),
    Group('voc', 'Pascal VOC 2012: semantic segmentation', 'Pascal VOC'),
    Group('classification', 'ImageNet-1k: classification', 'ImageNet-1k'),
    Group('imagenet22k', 'ImageNet-22k: pre-training', 'ImageNet-22k'),
    Group('cifar10', 'CIFAR-10: classification', 'CIFAR-10'),
    Group('ham10000', 'HAM10000: classification', 'HAM10000'),
)

# parts of the names of configs -> heads
HEADS = {
    'atss': 'ATSS',
    'cascade-mask-rcnn': 'Cascade Mask R-CNN',
    'detr': 'DETR',
    'fcos': 'FCOS',
    'fpn': 'Semantic FPN',
    'fpn-fcn': 'FCN on FPN',
    'gcnet': 'GCNet',
    'gfl': 'GFL',
    'horupernet': 'HorUperNet',
    'htc': 'HTC',
    'mask-rcnn': 'Mask R-CNN',
    'mask2former': 'Mask2Former',
    'nonlocal': 'Non-local',
    'retinanet': 'RetinaNet',
    'td-hm': 'Simple Baselines',
    'upernet': 'UperNet',
}


class Model:
    """One config with its figures.

    Attributes:
        name: Name of the config file, without its suffix.
        config: Path of the config, relative to the folder of ``model-index.yml``.
        dataset: Training data.
        parameters: Number of parameters.
        flops: Multiply-adds for one image.
        size: (height, width) of that image.
        results: Accuracies, as in the metafile.
        weights: Address of trained weights that load as they are, or None.
    """

    def __init__(self, entry: dict) -> None:
        data = entry['Metadata']
        self.name: str = entry['Name']
        self.config: str = entry['Config']
        self.dataset: str = data['Training Data']
        self.parameters: int = data['Parameters']
        self.flops: int = data['FLOPs']
        height, width = map(int, data['Input Size'].split('x'))
        self.size = height, width
        self.results: list[dict] = entry.get('Results', [])
        self.weights: str | None = entry.get('Weights')

    @property
    def group(self) -> Group:
        """Table that the model belongs to."""
        tasks = {result['Task'] for result in self.results}
        if not tasks and 'panoptic' in self.name:
            tasks = {'Panoptic Segmentation'}
        found = [group for group in GROUPS if group.dataset == self.dataset]
        rest = next(group for group in found if not group.tasks)
        return next((group for group in found if tasks.intersection(group.tasks)), rest)

    @property
    def head(self) -> str:
        """Detector or decoder, inferred from the name: ``mask-rcnn_...``, ``..._upernet_...``."""
        if 'Image Classification' in DATASETS[self.dataset]:
            return 'Classifier'
        parts = self.name.split('_')
        detects = self.dataset == 'COCO'
        for part in parts[:1] if detects else parts:
            for name in (part, *(part.rsplit('-', i)[0] for i in range(1, part.count('-') + 1))):
                if name in HEADS:
                    return HEADS[name]
        return parts[0 if detects else 1]

    @property
    def backbone(self) -> str:
        """Backbone, inferred from the name, e.g. ``van-b0``."""
        parts = self.name.split('_')
        first = self.dataset != 'COCO' and not any(parts[0].startswith(head) for head in HEADS)
        return parts[0 if first else 1]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Accuracies by source, measured ones last."""
        found: dict[str, dict[str, float]] = {}
        for result in sorted(self.results, key=lambda result: result['Source'] == MEASURED):
            found.setdefault(result['Source'], {}).update(result['Metrics'])
        return found


def source_type(source: str) -> str:
    """'measured' (by us), 'unverified' (quoted from memory or second-hand) or 'reported'."""
    if source == MEASURED:
        return 'measured'
    doubtful = ('unverified', 'not verified', 'second-hand', 'recalled')
    return 'unverified' if any(word in source for word in doubtful) else 'reported'


class Tree:
    """One config tree.

    Attributes:
        folder: Folder of the tree.
        collection: Entry of the networks in the metafile.
        models: Configs of the tree.
    """

    def __init__(self, metafile: Path, content: dict) -> None:
        self.folder = metafile.parent
        self.collection: dict = content['Collections'][0]
        self.models = [Model(entry) for entry in content['Models']]

    @property
    def paper(self) -> tuple[str, str] | None:
        """Title and address of the paper; None of networks without one."""
        found = self.collection.get('Paper')
        return (found['Title'], found['URL']) if found else None

    @property
    def references(self) -> str:
        """Links to paper and code in Markdown; empty where there are none."""
        links = [f'[{self.paper[0]}]({self.paper[1]})'] if self.paper else []
        if 'Code' in self.collection:
            official = 'official code' if self.paper else 'code'
            links.append(f'[{official}]({self.collection["Code"]["URL"]})')
        return ', '.join(links)


T = TypeVar('T', bound=Tree)


def read_trees(root: Path, tree_type: type[T] = Tree) -> list[T]:  # type: ignore[assignment]
    """Read the trees that ``model-index.yml`` imports.

    Args:
        root: Folder of ``model-index.yml``.
        tree_type: Class of the trees.

    Raises:
        ValueError: A metafile is not valid; the message has a line for every mistake.
    """
    contents, mistakes = _read(root)
    if mistakes:
        raise ValueError('\n'.join(mistakes))
    return [tree_type(path, content) for path, content in contents.items()]


def validate(root: Path) -> list[str]:
    """Mistakes in the metafiles and in ``model-index.yml``, a line for each.

    Args:
        root: Folder of ``model-index.yml``.
    """
    return _read(root)[1]


def _read(root: Path) -> tuple[dict[Path, dict], list[str]]:
    mistakes: list[str] = []
    contents: dict[Path, dict] = {}
    index = _load(root / 'model-index.yml', 'model-index.yml', mistakes)
    listed = index.get('Import') if isinstance(index, dict) else None
    if not isinstance(listed, list):
        mistakes.append('model-index.yml: Import must be a list of metafiles')
        return contents, mistakes
    there = sorted(p.relative_to(root).as_posix() for p in root.glob('configs/*/metafile.yml'))
    for path in sorted(set(there) - set(listed)):
        mistakes.append(f'model-index.yml: {path} is not imported')
    for path in sorted({path for path in listed if listed.count(path) > 1}):
        mistakes.append(f'model-index.yml: {path} is imported twice')
    seen: dict[str, str] = {}
    for path in dict.fromkeys(listed):
        content = _load(root / path, path, mistakes)
        if content is None:
            continue
        found = list(_check_metafile(root, path, content, seen))
        mistakes += [f'{path}: {text}' for text in found]
        if not found:
            contents[root / path] = content
    return contents, mistakes


def _load(file: Path, name: str, mistakes: list[str]) -> Any:
    try:
        return read_yaml(file)
    except OSError:
        mistakes.append(f'{name}: the file does not exist')
    except yaml.YAMLError as error:
        mistakes.append(f'{name}: not valid YAML: {" ".join(str(error).split())}')
    return None


def _fields(node: Any, where: str, required: Mapping[str, type], optional: Mapping[str, type]):
    """Mistakes in the keys of a mapping and in the types of their values."""
    if not isinstance(node, dict):
        yield f'{where} must be a mapping, got {node!r}'
        return
    known = {**required, **optional}
    for key in required:
        if key not in node:
            yield f'{where} has no {key}'
    for key, value in node.items():
        expected = known.get(key)
        if expected is None:
            hint = nearest(str(key), known) or f'; known are {", ".join(known)}'
            yield f'{where}: unknown field {key!r}{hint}'
        elif not isinstance(value, expected) or isinstance(value, bool) or value in ('', [], {}):
            yield f'{where}: {key} must be a non-empty {expected.__name__}, got {value!r}'


def _check_metafile(root: Path, path: str, content: Any, seen: dict[str, str]) -> Iterator[str]:
    mistakes = list(_fields(content, 'file', {'Collections': list, 'Models': list}, {}))
    if not mistakes and len(content['Collections']) != 1:
        mistakes.append(f'Collections must have one entry, got {len(content["Collections"])}')
    if mistakes:
        yield from mistakes
        return
    folder = Path(path).parent.as_posix()
    collection = content['Collections'][0]
    mistakes = list(_check_collection(collection, folder))
    yield from mistakes
    title = collection.get('Name') if isinstance(collection, dict) else None
    for number, entry in enumerate(content['Models']):
        name = entry.get('Name') if isinstance(entry, dict) else None
        where = f'model {name or number}'
        mistakes = list(_check_model(entry, title, folder, root))
        yield from (f'{where}: {text}' for text in mistakes)
        if name in seen:
            yield f'{where}: the name is used in {seen[name]} already'
        elif name:
            seen[name] = path
    listed = {entry.get('Name') for entry in content['Models'] if isinstance(entry, dict)}
    for config in sorted((root / folder).glob('*.py')):
        if config.stem not in listed:
            yield f'{config.name} of this folder is not listed'


def _check_collection(node: Any, folder: str) -> Iterator[str]:
    required = {'Name': str, 'Metadata': dict, 'Notes': str}
    optional = {'Paper': dict, 'Code': dict, 'README': str}
    mistakes = list(_fields(node, 'collection', required, optional))
    yield from mistakes
    if mistakes:
        return
    yield from _fields(node['Metadata'], 'collection, Metadata', {'Architecture': list}, {})
    if 'Paper' in node:
        yield from _fields(node['Paper'], 'collection, Paper', {'Title': str, 'URL': str}, {})
    if 'Code' in node:
        yield from _fields(node['Code'], 'collection, Code', {'URL': str}, {})
    for key in ('Paper', 'Code'):
        url = node.get(key, {}).get('URL')
        if isinstance(url, str) and not re.fullmatch(r'https://\S+', url):
            yield f'collection, {key}: URL must start with https://, got {url!r}'
    if node.get('README', f'{folder}/README.md') != f'{folder}/README.md':
        yield f'collection: README must be {folder}/README.md, got {node["README"]!r}'


def _check_model(node: Any, collection: str | None, folder: str, root: Path) -> Iterator[str]:
    required = {'Name': str, 'In Collection': str, 'Config': str, 'Metadata': dict}
    mistakes = list(_fields(node, 'entry', required, {'Results': list, 'Weights': str}))
    if not mistakes:
        data = {'Training Data': str, 'Parameters': int, 'FLOPs': int, 'Input Size': str}
        mistakes = list(_fields(node['Metadata'], 'Metadata', data, {}))
    if mistakes:
        yield from mistakes
        return
    config, data = node['Config'], node['Metadata']
    if collection is not None and node['In Collection'] != collection:
        yield f'In Collection must be {collection!r}, got {node["In Collection"]!r}'
    if config != f'{folder}/{node["Name"]}.py':
        yield f'Config must be {folder}/{node["Name"]}.py, got {config!r}'
    elif not (root / config).is_file():
        yield f'Config {config} does not exist'
    for key in ('Parameters', 'FLOPs'):
        if data[key] <= 0:
            yield f'{key} must be positive, got {data[key]}'
    if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', data['Input Size']):
        yield f'Input Size must be HEIGHTxWIDTH, got {data["Input Size"]!r}'
    dataset = data['Training Data']
    if dataset not in DATASETS:
        yield f'Training Data {dataset!r} is not known; known are {", ".join(DATASETS)}'
        return
    if not re.fullmatch(r'https://\S+', node.get('Weights', 'https://none')):
        yield f'Weights must start with https://, got {node["Weights"]!r}'
    seen: set[tuple[str, str]] = set()
    for number, result in enumerate(node.get('Results', ())):
        yield from _check_result(result, f'Results {number}', dataset, seen)


def _check_result(node: Any, where: str, dataset: str, seen: set) -> Iterator[str]:
    required = {'Task': str, 'Dataset': str, 'Metrics': dict, 'Source': str}
    mistakes = list(_fields(node, where, required, {}))
    if mistakes:
        yield from mistakes
        return
    task, source = node['Task'], node['Source']
    if node['Dataset'] != dataset:
        yield f'{where}: Dataset must be that of Training Data, {dataset}, got {node["Dataset"]!r}'
    if task not in DATASETS[dataset]:
        yield f'{where}: Task of {dataset} must be one of {DATASETS[dataset]}, got {task!r}'
        return
    for name, value in node['Metrics'].items():
        if name not in METRICS[task]:
            yield f'{where}: metric {name!r} is not known; {task} has {", ".join(METRICS[task])}'
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
            yield f'{where}: {name} must be a percentage, got {value!r}'
        if (name, source) in seen:
            yield f'{where}: {name} from {source!r} is listed twice'
        seen.add((name, source))
