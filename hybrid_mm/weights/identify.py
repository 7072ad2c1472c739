"""What a file of weights is: its format, layout and network, and whether it is a published one."""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.checkpoint_files.kinds import kind_of
from hybrid_mm.checkpoint_files.loading import CheckpointError, load_from_local
from hybrid_mm.convert import SOURCES, convert, detect, differences, unwrap
from hybrid_mm.convert.core import AVERAGES, averages, container
from hybrid_mm.errors import plain_text
from hybrid_mm.ops.fitted_weights import Changes, fitted_weights
from hybrid_mm.weights.registry import OURS, SCHEME, PublishedFile, Weights, all_weights

StateDict = dict[str, Tensor]

_FORMATS = {
    'torch': 'torch.save',
    'safetensors': 'safetensors',
    'npz': 'NumPy archive (.npz)',
    'pickle': 'pickle of NumPy arrays, as detectron2 writes it',
    'flax': 'Flax checkpoint (MessagePack)',
    'index': 'index of several files',
}
_SEGMENTERS = {'decode_head', 'auxiliary_head'}
_DETECTORS = {
    *('rpn_head', 'roi_head', 'bbox_head', 'mask_head', 'panoptic_head', 'query_head', 'neck'),
    *('proposal_generator', 'roi_heads', 'sem_seg_head'),
}
# layers whose first dimension counts classes, and what else it counts
_CLASSES = [
    (r'(head|head_dist|head\.fc)\.weight', 0),
    (r'decode_head\.(conv_seg|linear_pred)\.weight', 0),
    (r'roi_head\.bbox_head(\.\d+)?\.fc_cls\.weight', 1),
    (r'roi_heads\.box_predictor(\.\d+)?\.cls_score\.weight', 1),
    (r'(panoptic_head|decode_head)\.cls_embed\.weight', 1),
    (r'sem_seg_head\.predictor\.class_embed\.weight', 1),
]
_NEAR = 0.85  # share of tensors that agree from which a network is called the nearest one


@dataclass(frozen=True)
class Fit:
    """A network of ours beside the backbone of a file.

    Attributes:
        network: Name of the class.
        arch: Name of the variant.
        share: Share of the tensors that agree in name and shape, of both together.
        differences: Phrases for what does not agree.
        resized: Whether tables of the file are for another size of image than the network has by
            default.
    """

    network: str
    arch: str
    share: float
    differences: tuple[str, ...] = ()
    resized: bool = False

    def __str__(self) -> str:
        return f"{self.network}(arch='{self.arch}')"


@dataclass(frozen=True)
class Identity:
    """What is known of a file.

    Attributes:
        path: The file.
        format: Key of the reader, see :func:`.kinds.kind_of`.
        size: Bytes.
        sha256: Hexadecimal digits.
        source: Layout, a name in ``convert.SOURCES``; 'ours'; or None if no layout that is known
            has such names.
        problem: Why the layout does not convert the file, or empty.
        kind: 'backbone', 'classifier', 'detector' or 'segmenter'.
        fits: Variants of our networks that have these tensors, best first; if none has them all,
            the nearest one with its differences.
        tensors: Number of tensors of the weights.
        numbers: Numbers in them.
        dtypes: Their types, the most frequent first.
        classes: Classes of its heads by the name of their last layer.
        parts: Tensors by the part of the model they belong to.
        image_size: Height and width that its tables of positions are for, where they tell, or
            what the settings in the file say.
        key: Key under which the weights are, or None.
        others: What else is in the file: key and a phrase.
        names: First names of the weights in the file.
        published: Entries of the registry whose file this is, by its hash.
        alike: Entries that have a file of this name, with whether their hash is known, and so not
            that of this file.
    """

    path: str
    format: str
    size: int
    sha256: str
    source: str | None
    problem: str
    kind: str
    fits: tuple[Fit, ...]
    tensors: int
    numbers: int
    dtypes: tuple[str, ...]
    classes: Mapping[str, int]
    parts: Mapping[str, int]
    image_size: tuple[int, int] | None
    key: str | None
    others: Mapping[str, str]
    names: tuple[str, ...]
    published: tuple[str, ...] = ()
    alike: Mapping[str, bool] = field(default_factory=dict)


def identify(path: str | os.PathLike[str]) -> Identity:
    """Say what a local file of weights is.

    Raises:
        CheckpointError: It cannot be read, or has no weights.
    """
    path = str(path)
    loaded = load_from_local(path)
    local = os.path.expanduser(path)
    hashes = _hashes(local)
    published, alike = _published(local, hashes)
    # whoever publishes a file knows its layout, also one that its names do not tell
    entry = published[0][1] if published else None
    key = entry.key if entry else None
    if not isinstance(loaded, dict):
        raise CheckpointError(path, f'holds a {type(loaded).__name__}; expected a dict of weights')
    try:
        official = unwrap(loaded, key)
    except ValueError as error:
        raise CheckpointError(path, f'cannot be used: {error}') from error
    source, state, problem = _in_our_layout(official, entry)
    backbone = _backbone(state)
    fits = () if problem else _fits(backbone)
    if source is None and fits:
        source = OURS
    return Identity(
        path=path,
        format=kind_of(local),
        size=os.path.getsize(local),
        sha256=hashes['sha256'],
        source=source,
        problem=problem,
        kind=_kind(state),
        fits=fits,
        tensors=len(official),
        numbers=sum(value.numel() for value in official.values()),
        dtypes=_dtypes(official),
        classes=_classes(state),
        parts=Counter(_part(key, state) for key in state),
        image_size=_image_size(official, loaded),
        key=key or container(loaded),
        others=_others(loaded),
        names=tuple(official)[:4],
        published=tuple(weights.name for weights, _ in published),
        alike=alike,
    )


def describe(path: str | os.PathLike[str]) -> str:
    """Text of :func:`identify`, a line for each thing that is known.

    Raises:
        CheckpointError: It cannot be read, or has no weights.
    """
    found = identify(path)
    lines = [str(path), *(f'  {name:<10} {text}' for name, text in _lines(found) if text)]
    return '\n'.join(lines)


def _lines(found: Identity) -> Iterator[tuple[str, str]]:
    where = f', weights under {found.key!r}' if found.key else ''
    yield 'format', f'{_FORMATS[found.format]}, {found.size:,} bytes{where}'
    yield 'SHA-256', found.sha256
    for name in found.published:
        yield 'published', f'{SCHEME}{name}, by its hash'
    for name, has_hash in found.alike.items():
        reason = 'with another hash: changed or damaged' if has_hash else 'whose hash is not known'
        yield 'name', f'that of a file of {SCHEME}{name}, {reason}'
    if found.source == OURS:
        yield 'layout', 'ours: it loads as it is'
    elif found.source is None:
        known = ', '.join(sorted(SOURCES))
        yield 'layout', f'none that is known has such names: {", ".join(found.names)}, ...'
        yield '', f'known are {known}'
    else:
        yield 'layout', f'{found.source}: {SOURCES[found.source].description}'
    yield 'problem', found.problem
    for fit in found.fits:
        size = ' for another size of image' if fit.resized else ''
        nearest = f', nearest: {"; ".join(fit.differences)}' if fit.differences else ''
        yield 'network', f'{fit}{size}{nearest}'
    parts = {name: n for name, n in found.parts.items() if name != 'backbone'}
    beside = ', '.join(f'{name} ({n} tensors)' for name, n in parts.items())
    yield 'kind', found.kind + (f': backbone and {beside}' if beside else '')
    yield 'classes', ', '.join(f'{n} ({name})' for name, n in found.classes.items())
    if found.image_size:
        yield 'image', f'{found.image_size[0]} x {found.image_size[1]} pixels'
    yield 'numbers', f'{found.numbers:,} in {found.tensors} tensors, {", ".join(found.dtypes)}'
    yield 'also', ', '.join(f'{key} ({what})' for key, what in found.others.items())


def _hashes(path: str) -> dict[str, str]:
    found = [hashlib.sha256(), hashlib.md5(usedforsecurity=False)]
    with open(path, 'rb') as file:
        while block := file.read(1 << 22):
            for digest in found:
                digest.update(block)
    return {digest.name: digest.hexdigest() for digest in found}


def _published(
    path: str, hashes: Mapping[str, str]
) -> tuple[list[tuple[Weights, PublishedFile]], dict[str, bool]]:
    """Entries of which this is a file, and those that have one of its name."""
    same: list[tuple[Weights, PublishedFile]] = []
    alike: dict[str, bool] = {}
    for weights in all_weights().values():
        for file in weights.files:
            known = [(hashes[kind], getattr(file, kind)) for kind in hashes]
            known = [(ours, theirs) for ours, theirs in known if theirs]
            if known and all(ours.startswith(theirs.lower()) for ours, theirs in known):
                same.append((weights, file))
            elif file.name == Path(path).name:
                alike[weights.name] = alike.get(weights.name, False) or bool(known)
    names = {weights.name for weights, _ in same}
    return same, {name: known for name, known in alike.items() if name not in names}


def _in_our_layout(
    official: StateDict, entry: PublishedFile | None
) -> tuple[str | None, StateDict, str]:
    """Layout, the weights in ours, and why they could not be brought to it."""
    source = entry.layout if entry and entry.layout in SOURCES else None
    try:
        source = source or detect(official)
        return source, convert(official, source) if source else official, ''
    except ValueError as error:
        return source, official, plain_text(error)


def _backbone(state: StateDict) -> StateDict:
    """The network of a whole model, or of a classifier, without its head."""
    inner = {k[9:]: v for k, v in state.items() if k.startswith('backbone.')} or state
    return {k: v for k, v in inner.items() if not k.startswith(('head.', 'head_dist.', 'neck.'))}


def _kind(state: StateDict) -> str:
    parts = {key.partition('.')[0] for key in state}
    if parts & _SEGMENTERS:
        return 'segmenter'
    if 'backbone' in parts and parts & _DETECTORS:
        return 'detector'
    return 'classifier' if parts & {'head', 'head_dist', 'fc'} else 'backbone'


def _part(key: str, state: StateDict) -> str:
    first = key.partition('.')[0]
    whole = any(name.startswith('backbone.') for name in state)
    return first if whole or first in ('head', 'head_dist') else 'backbone'


def _classes(state: StateDict) -> dict[str, int]:
    return {
        key.removesuffix('.weight'): value.shape[0] - more
        for key, value in state.items()
        for pattern, more in _CLASSES
        if re.fullmatch(pattern, key) and value.ndim
    }


def _dtypes(state: StateDict) -> tuple[str, ...]:
    numbers = Counter(str(v.dtype).removeprefix('torch.') for v in state.values() if v.ndim)
    return tuple(name for name, _ in numbers.most_common())


def _image_size(official: StateDict, loaded: Mapping[str, Any]) -> tuple[int, int] | None:
    """From a table of absolute positions and the size of a patch, or from stored settings."""
    for key, table in official.items():
        prefix = key.removesuffix('pos_embed')
        patch = official.get(f'{prefix}patch_embed.proj.weight')
        if prefix != key and patch is not None and table.ndim == 3 and patch.ndim == 4:
            extra = (0, 1, 2)  # class token, distillation token
            side = next((math.isqrt(table.shape[1] - n) for n in extra if _square(table, n)), 0)
            if side:
                return side * patch.shape[2], side * patch.shape[3]
    settings = loaded.get('args')
    settings = settings if isinstance(settings, Mapping) else getattr(settings, '__dict__', {})
    for name in ('img_size', 'input_size', 'image_size'):
        size = settings.get(name)
        if isinstance(size, int):
            return size, size
        if isinstance(size, list | tuple) and len(size) >= 2 and isinstance(size[-1], int):
            return size[-2], size[-1]
    return None


def _square(table: Tensor, extra: int) -> bool:
    number = table.shape[1] - extra
    return number > 0 and math.isqrt(number) ** 2 == number


def _others(loaded: Mapping[str, Any]) -> dict[str, str]:
    taken = container(loaded)
    found = {}
    for key, value in loaded.items():
        if key == taken or (taken is None and isinstance(value, Tensor | Mapping)):
            continue
        if key in averages(loaded):
            what = 'averaged weights'
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 40):
            what = str(value)
        elif isinstance(value, Mapping):
            what = f'{len(value)} entries'
        else:
            what = type(value).__name__
        found[str(key)] = what
    if taken in AVERAGES:
        found[taken] = 'averaged weights, the only ones'
    return found


# -- networks ------------------------------------------------------------------------------------


def _fits(backbone: StateDict) -> tuple[Fit, ...]:
    """The variants of our networks that have the tensors of a backbone, or the nearest one."""
    found = sorted(
        (fit for network in _candidates(set(backbone)) for fit in _variants(network, backbone)),
        key=lambda fit: (bool(fit.differences), fit.resized, -fit.share),
    )
    exact = tuple(fit for fit in found if fit == found[0] or not (fit.differences or fit.resized))
    return exact if found and (not found[0].differences or found[0].share > _NEAR) else ()


def _patterns(names: Iterable[str]) -> set[str]:
    """Names without numbers and, as files of plain networks have them, without stages."""
    counters = 'num_batches_tracked'
    found = {re.sub(r'\d+', '#', name) for name in names if not name.endswith(counters)}
    return {re.sub(r'^stages\.#\.(?=blocks\.)', '', name) for name in found}


@cache
def _networks() -> Mapping[type, set[str]]:
    """Our networks with the names in the first of their variants, without numbers."""
    # by name, as a registry finds it: networks read checkpoints, and so import this room
    found = vars(import_module('hybrid_mm.backbones')).values()
    networks: list[Any] = [c for c in found if isinstance(c, type) and hasattr(c, 'arch_zoo')]
    networks = [c for c in networks if c.arch_zoo]
    models = {c: _model(c, next(iter(c.arch_zoo))) for c in networks}
    names = {c: _patterns(model.state_dict()) for c, model in models.items() if model is not None}
    return {c: found for c, found in names.items() if found}


@cache
def _model(network: Any, arch: str) -> Any:
    """A variant without numbers."""
    try:
        with torch.device('meta'):
            return network(arch)
    except ValueError:  # one that needs arguments
        return None


def _candidates(names: set[str]) -> list[type]:
    """Networks that share most names with a file."""
    wanted = _patterns(names)
    shares = {c: len(wanted & has) / len(wanted | has) for c, has in _networks().items()}
    best = max(shares.values(), default=0)
    return [c for c, share in shares.items() if share > 0.3 and share > best - 0.15]


def _variants(network: Any, backbone: StateDict) -> Iterator[Fit]:
    sizes = {k: torch.empty_like(v, device='meta') for k, v in backbone.items()}
    for arch in network.arch_zoo:
        model = _model(network, arch)
        if model is None:
            continue
        try:
            given, changes = fitted_weights(model, sizes)
        except (ValueError, RuntimeError):  # the values decide how it is fitted
            given, changes = sizes, Changes()
        own = model.state_dict()
        # whether a map has a norm depends on what it is for
        own, given = (
            {k: v for k, v in state.items() if (k in own and k in given) or not _of_a_map(k)}
            for state in (own, given)
        )
        same = sum(k in own and own[k].shape == v.shape for k, v in given.items())
        share = same / max(1, len(own.keys() | given.keys()))
        yield Fit(
            network.__name__, arch, share, tuple(differences(own, given)), bool(changes.resized)
        )


def _of_a_map(key: str) -> bool:
    return re.fullmatch(r'(stages\.\d+\.)?norm\.\w+', key) is not None
