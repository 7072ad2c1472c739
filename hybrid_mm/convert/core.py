"""Registry of checkpoint layouts, their detection, and helpers of converters."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    'Source',
    'averages',
    'container',
    'convert',
    'count_from_zero',
    'detect',
    'differences',
    'misfit',
    'place_reductions',
    'register',
    'rename',
    'unknown_key',
    'unwrap',
]

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """One published layout.

    Attributes:
        description: Models and repository of such files.
        matches: Whether the keys of a backbone or classifier have this layout.
        convert: Converts a state dict to our layout; raises ValueError for an unknown key.
        whole: Pass whole detectors, including neck and heads, to ``matches`` and ``convert``; by
            default they get only the backbone.
    """

    description: str
    matches: Callable[[set[str]], bool]
    convert: Callable[[StateDict], StateDict]
    whole: bool = False


SOURCES: dict[str, Source] = {}

# of rules: the last part of a name, also that of a batch norm
LEAF = r'\.(weight|bias)'
BATCH_NORM = r'\.(weight|bias|running_mean|running_var|num_batches_tracked)'

# keys under which training programs keep averages of weights over the training
AVERAGES = (
    *('state_dict_ema', 'ema_state_dict', 'model_ema', 'ema', 'ema_model', 'params_ema'),
    *('ema_params', 'teacher_model', 'teacher'),
)
# keys under which they keep weights; averages come last
WRAPPERS = (
    *('state_dict', 'model', 'model_state_dict', 'model_state', 'net', 'module', 'params'),
    *(*AVERAGES, 'student'),
)
# beside the weights in an average of MMEngine, torch or ema_pytorch
_COUNTERS = {'steps', 'n_averaged', 'step', 'initted'}
# of modules around a whole model: parallel training, torch.compile, averages
_PREFIXES = ('module.', '_orig_mod.', 'ema.', 'ema_model.')
_LARGEST = 1 << 28  # numbers of a sparse tensor that is filled
_DEEPEST, _MOST_DICTS = 50, 100_000  # of dicts in dicts; those of a file may be within themselves
_OPTIMIZERS = {'optimizer', 'optimizers', 'opt_state', 'optimizer_states', 'optimizer_state'}


def register(name: str, source: Source) -> None:
    """Add a layout; ``name`` is the value of ``--source``.

    Args:
        name: The value of ``--source``.
        source: What tells the layout, and its conversion.
    """
    if name in SOURCES:
        raise KeyError(f'checkpoint source {name!r} is registered already')
    SOURCES[name] = source


def unwrap(loaded: Mapping[str, Any], key: str | None = None) -> StateDict:
    """Extract the state dict from a loaded checkpoint file.

    Args:
        loaded: A state dict, or a dict that holds one under a key of ``WRAPPERS``, of which the
            first counts. Prefixes that all names have by parallel training, compilation or
            averaging (``module.``, ``_orig_mod.``, ``ema.``) are removed. Names of nested dicts, as
            Flax has them, are joined by slashes, its statistics beside ``params`` included. Sparse
            and quantized tensors become plain ones.
        key: Where the weights are, if not under the first of ``WRAPPERS``: a key, or several with
            dots between them.

    Raises:
        ValueError: There are no weights, or one has no numbers.
    """
    wrapper = None
    if key is not None:
        loaded = _at(loaded, key)
    elif wrapper := container(loaded):
        statistics = loaded.get('batch_stats') if wrapper == 'params' else None
        loaded = {**loaded[wrapper], **(statistics or {})} if statistics else loaded[wrapper]
    if isinstance(loaded, Mapping) and (inner := container(loaded)) and wrapper != 'params':
        beside = {k: v for k, v in loaded.items() if k not in WRAPPERS and k not in _OPTIMIZERS}
        loaded = loaded if _tensors(beside) else loaded[inner]
    state = _tensors(loaded) if isinstance(loaded, Mapping) else {}
    if not state:
        raise ValueError('no weights found: expected a state dict, or a dict with "state_dict"')
    names = [name for name in state if name not in _COUNTERS]
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in names)), None):
        if not names:
            break
        state = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        names = list(state)
    return {name: _dense(name, value) for name, value in state.items()}


def _dense(name: str, value: Tensor) -> Tensor:
    """A tensor as weights need it: with all its numbers, and not quantized."""
    if value.is_nested or value.is_meta:
        raise ValueError(
            f'{name!r} is a tensor without {"a shape" if value.is_nested else "numbers"}'
        )
    if value.is_quantized:
        return value.dequantize()
    if value.layout is torch.strided:
        return value
    if value.numel() > _LARGEST:
        raise ValueError(f'{name!r} is a sparse tensor of {value.numel()} numbers')
    return value.to_dense()


def container(loaded: Mapping[str, Any]) -> str | None:
    """Key of ``WRAPPERS`` under which :func:`unwrap` finds weights, or None.

    Args:
        loaded: Content of a checkpoint file.
    """
    if not isinstance(loaded, Mapping):
        return None
    return next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)


def averages(loaded: Mapping[str, Any]) -> list[str]:
    """Keys with averaged weights that :func:`unwrap` does not take because there are others.

    Args:
        loaded: Content of a checkpoint file.
    """
    found = container(loaded)
    others = [key for key in AVERAGES if found and isinstance(loaded.get(key), Mapping)]
    return [key for key in others if key != found and _tensors(loaded[key])]


def _at(loaded: Mapping[str, Any], key: str) -> Any:
    """What is under a key, or under one part of it after the other."""
    if isinstance(loaded, Mapping) and key in loaded:
        return loaded[key]
    found: Any = loaded
    for part in key.split('.'):
        if not isinstance(found, Mapping) or part not in found:
            known = [str(k) for k, v in loaded.items() if isinstance(v, Mapping)]
            raise ValueError(f'there is no {key!r} in it; of its keys {known} are dicts')
        found = found[part]
    return found


def _tensors(
    node: Mapping[str, Any], depth: int = 0, seen: Iterator[int] | None = None
) -> StateDict:
    """The tensors of a state dict; if there are dicts in it, theirs as well."""
    seen = seen or itertools.count()
    if depth > _DEEPEST or next(seen) > _MOST_DICTS:
        raise ValueError('it has dicts within dicts without an end')
    whole = {k: v for k, v in node.items() if isinstance(v, Tensor) and isinstance(k, str)}
    # a state dict as PyTorch writes it has names with dots, and dicts beside it are no weights
    if any('.' in name for name in whole):
        return whole
    return whole | {
        f'{key}/{name}': value
        for key, part in node.items()
        if isinstance(part, Mapping) and isinstance(key, str) and key not in _OPTIMIZERS
        for name, value in _tensors(part, depth + 1, seen).items()
    }


def differences(expected: StateDict, found: Mapping[str, Any]) -> list[str]:
    """Describe how the tensors of a file differ from those of a model.

    Args:
        expected: State dict of the model.
        found: State dict of the file. It may lack the step counters of batch norms, as files of
            old torch versions do.

    Returns:
        One phrase each for missing and unexpected names and for wrong shapes, with the first three
        names; empty if the file fits.
    """
    counter = 'num_batches_tracked'
    groups = {
        'missing': [k for k in expected if k not in found and not k.endswith(counter)],
        'unexpected': [k for k in found if k not in expected],
        'of another shape': [
            f'{k} (file {tuple(found[k].shape)}, model {tuple(expected[k].shape)})'
            for k in expected
            if k in found and hasattr(found[k], 'shape') and found[k].shape != expected[k].shape
        ],
    }
    return [
        f'{len(keys)} {what}: {", ".join(keys[:3])}{", ..." * (len(keys) > 3)}'
        for what, keys in groups.items()
        if keys
    ]


def _split(state: StateDict) -> tuple[StateDict, StateDict]:
    """Split a detector or segmenter into backbone and rest; of other models all is backbone."""
    inner = {k[9:]: v for k, v in state.items() if k.startswith('backbone.')}
    if not inner:
        return state, {}
    return inner, {k: v for k, v in state.items() if not k.startswith('backbone.')}


def detect(state: StateDict) -> str | None:
    """Detect the layout of a state dict by its keys.

    Args:
        state: Weights by key.

    Returns:
        Name in ``SOURCES``, or None if no source matches, as for our own layout. Names of modules
        around the network, such as ``model.`` of Lightning, do not count.

    Raises:
        ValueError: Several sources match.
    """
    while True:
        names = _matching(state)
        if names or not (inner := _without_outer(state)):
            break
        state = inner
    if len(names) > 1:
        raise ValueError(f'the checkpoint fits several sources, name one of {names}')
    return names[0] if names else None


def _without_head(names: Iterable[str]) -> set[str]:
    """Names of a backbone, whatever it is a part of."""
    return {name.removeprefix('backbone.') for name in names if not name.startswith('head.')}


def _matching(state: StateDict) -> list[str]:
    wholes = [n for n, s in SOURCES.items() if s.whole and s.matches(set(state))]
    keys = set(_split(state)[0])
    # the backbone of such a detector may also match another source
    return wholes or [n for n, s in SOURCES.items() if not s.whole and s.matches(keys)]


def _without_outer(state: StateDict) -> StateDict:
    """Without the name of a module around all others (``model.``, ``encoder.``); {} if none is."""
    outer = {key.partition('.')[0] for key in state}
    if len(outer) != 1 or not all('.' in key for key in state):
        return {}
    return {key.partition('.')[2]: value for key, value in state.items()}


def _inside(state: StateDict, source: Source) -> StateDict:
    """Without names of modules around the whole that such files do not have."""
    inner = state
    while inner:
        if source.matches(set(inner if source.whole else _split(inner)[0])):
            return inner
        inner = _without_outer(inner)
    return state


def misfit(
    weights: StateDict, expected: StateDict, model: str, source: str | None = None
) -> str | None:
    """Say what a file is that belongs to another network than a model.

    Args:
        weights: Content of the file.
        expected: State dict of the model, in our layout.
        model: Name of its class.
        source: Layout of the file that the weights, in our layout now, are from.

    Returns:
        A sentence without its end; None if most names are the model's.
    """
    found = weights
    if source not in SOURCES:
        try:
            source = detect(weights)
            found = convert(weights, source)
        except ValueError:
            return None
    ours = _without_head(expected)
    for state in (found, weights):  # some keep official names
        theirs, mine = _without_head(state), ours
        beside_blocks = {key for key in theirs if not key.startswith('blocks.')}
        if beside_blocks & mine and not any(key.startswith('stages.') for key in theirs):
            # of a plain network, whose blocks ours divides into stages
            mine = {re.sub(r'^stages\.\d+\.', '', key) for key in ours}
        if 2 * len(mine & theirs) >= min(len(mine), len(theirs)):
            return None
    if source is not None:
        return (
            f'It is a checkpoint of {SOURCES[source].description} (layout {source}), and the '
            f'model is {model}'
        )
    return (
        f'No layout that is known has such names: {", ".join(list(weights)[:3])}, ...; nor has '
        f'{model}, with {", ".join(list(expected)[:3])}, ... '
        '`python -m hybrid_mm weights check FILE` says what a file is, and docs/weights.md which '
        'layouts are known'
    )


def convert(state: StateDict, source: str | None = None) -> StateDict:
    """Convert the weights of a backbone, classifier, detector or segmenter to our layout.

    Args:
        state: State dict. With keys under ``backbone.``, only those are renamed and the other
            parts (neck, heads) stay as they are, unless the source is one of whole detectors.
        source: Name in ``SOURCES``; by default detected by the keys. If no source matches, the
            state dict is returned unchanged.

    Returns:
        State dict in our layout; a classifier's head keeps the keys ``head.weight`` and
        ``head.bias``.

    Raises:
        KeyError: Unknown source.
        ValueError: A key is unknown to the source, or two keys become the same.
    """
    if source is None:
        source = detect(state)
        if source is None:
            return dict(state)
    if source not in SOURCES:
        raise KeyError(f'unknown checkpoint source {source!r}: choose one of {sorted(SOURCES)}')
    state = _inside(state, SOURCES[source])
    inner, rest = (state, {}) if SOURCES[source].whole else _split(state)
    converted = SOURCES[source].convert(inner)
    if not rest:
        return converted
    # neck and heads keep their names; so does the head of MMPretrain's classifiers
    return {**{f'backbone.{key}': value for key, value in converted.items()}, **rest}


def unknown_key(source: str, key: str, value: Tensor) -> ValueError:
    """Make the error for a key that a source does not know; it has the shape, if not a scalar.

    Args:
        source: Name of the source.
        key: The key.
        value: The tensor under it.
    """
    shape = f' {tuple(value.shape)}' if value.ndim else ''
    return ValueError(f'{source}: do not know the key {key!r}{shape}')


def rename(state: StateDict, rules: list[tuple[str, str]], source: str) -> StateDict:
    """Rename every key by the first rule whose pattern matches the whole key.

    Args:
        state: State dict.
        rules: Pairs of a regular expression and a replacement (``re`` syntax).
        source: Name of the source, for error messages.

    Raises:
        ValueError: No rule matches a key, or two keys become the same.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    out: StateDict = {}
    for key, value in state.items():
        for pattern, replacement in compiled:
            match = pattern.fullmatch(key)
            if match:
                new = match.expand(replacement)
                break
        else:
            raise unknown_key(source, key, value)
        if new in out:
            raise ValueError(f'{source}: two keys become {new!r}, the second is {key!r}')
        out[new] = value
    return out


def count_from_zero(state: StateDict) -> StateDict:
    """Renumber stages that are counted from 1 to count from 0, in a renamed state dict.

    Args:
        state: Weights whose keys start with ``stages.N.``, N from 1.
    """

    def number(match: re.Match) -> str:
        return f'stages.{int(match[1]) - 1}.'

    return {re.sub(r'^stages\.(\d+)\.', number, key): value for key, value in state.items()}


def place_reductions(state: StateDict) -> StateDict:
    """Move reductions and the last norm of token pyramids into stages, in a renamed state dict.

    ``next.N.``, the reduction after stage N, becomes ``stages.N+1.downsample.``; ``last.`` becomes
    the last stage.

    Args:
        state: Weights with keys of ``stages.N.``, ``next.N.`` and ``last.``, N from 0.
    """
    count = max(int(key.split('.')[1]) for key in state if key.startswith('stages.'))

    def number(match: re.Match) -> str:
        return f'stages.{int(match[1]) + 1}.downsample.'

    return {
        re.sub(r'^last\.', f'stages.{count}.', re.sub(r'^next\.(\d+)\.', number, key)): value
        for key, value in state.items()
    }
