"""Workarounds for known breakages of the OpenMMLab stack, one function for each.

Those of B1, B5, B6 and of counters are applied by ``after_import`` when the module that they are
for is imported, the others by what needs them.
"""

import functools
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice

from hybrid_mm.compat import safe_loading
from hybrid_mm.compat.installed import find, is_installed, parse_version, read_text, version_of
from hybrid_mm.compat.stored_classes import stored_classes

TRUST = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'  # torch's variable that allows unsafe files


def b1_weights_only() -> bool:
    """B1: MMEngine 0.10.7 cannot read its own checkpoints with torch 2.6 or later.

    ``torch.load`` defaults to ``weights_only=True`` there, and a training checkpoint holds a
    ``HistoryBuffer`` and NumPy objects. OneDL's MMEngine reads them, but also executes the code in
    unsafe files, with a warning. For both, loaders of local files and of URLs are registered that
    allow MMEngine's own objects and nothing else. That of ``hybrid_mm://NAME`` comes with them.

    https://github.com/open-mmlab/mmengine/issues/1655.
    Remove when MMEngine refuses unsafe files.

    Returns:
        Whether this MMEngine has such loaders.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    if not hasattr(CheckpointLoader, 'register_scheme'):
        return False

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(
        prefixes=('http://', 'https://'), loader=load_from_http, force=True
    )
    CheckpointLoader.register_scheme(
        prefixes='hybrid_mm://', loader=load_from_hybrid_mm, force=True
    )
    return True


@contextmanager
def b5_mmcv_version() -> Iterator[None]:
    """B5: MMDetection 3.3, MMSegmentation 1.2 and their sister projects refuse mmcv 2.2.

    They were released before it and assert ``mmcv < 2.2.0`` when they are imported. It is the one
    with wheels for torch 2.2 to 2.4, and its Python files are those of mmcv 2.1.0 but for other
    accelerators in three operators and half precision in one. While one of these packages is
    imported, ``mmcv.__version__`` is the last one that all of them take. Later releases of mmcv
    were not tried with them: they stay refused.

    https://github.com/open-mmlab/mmdetection/issues/11763.
    Remove when the last release of each of these packages takes mmcv 2.2.
    """
    try:
        mmcv = import_module('mmcv')
    except Exception:  # the package that needs it says so in its own words
        mmcv = None
    version = getattr(mmcv, '__version__', '')
    if not takes_b5(parse_version(version)):
        yield
        return
    mmcv.__version__ = '2.1.0'
    try:
        yield
    finally:
        mmcv.__version__ = version


def takes_b5(mmcv: tuple[int, ...]) -> bool:
    """Whether a release of mmcv is one that B5 has packages accept."""
    return mmcv[:2] == (2, 2)


@contextmanager
def without_word_of_functional_optimizers() -> Iterator[None]:
    """MMEngine imports ``torch.distributed.optim``, of which nothing that we use is deprecated.

    torch 2.4 and some later releases warn of a part of it, whatever the filters of warnings are.
    Remove when torch >= 2.10 is required.
    """
    with warnings.catch_warnings(record=True) as caught:
        yield
    for each in caught:
        if 'functional optimizers' not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def b6_config_packages() -> bool:
    """B6: ``_base_ = 'mmseg::...'`` is refused with OneDL's MMSegmentation, ours everywhere.

    MMEngine maps ``mmseg`` to the distribution ``mmsegmentation``, but OneDL's has another name,
    and ``hybrid_mm`` is unknown to it. Both are added to its map in memory.

    https://mmengine.readthedocs.io/en/latest/advanced_tutorials/config.html#cross-project-inherit-and-import.
    Remove when MMEngine finds packages by module name.

    Returns:
        Whether the workaround was needed.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('hybrid_mm', 'hybrid_mm')
    if not has_b6():
        return False
    MODULE2PACKAGE['mmseg'] = 'mmseg'
    return True


def counters_of_mmengine() -> None:
    """MMEngine's counters, which trace, see our operators in networks of this package.

    So do the ``get_flops.py`` of OpenMMLab's packages, which build one themselves. There is no
    public way to say how all of them trace.
    """
    _count_our_operators('mmengine.analysis.jit_analysis')


def counters_of_fvcore() -> None:
    """The same for fvcore's counters, of which MMEngine's are a copy."""
    _count_our_operators('fvcore.nn.jit_analysis')


def _count_our_operators(name: str) -> None:
    analysis = import_module(name).JitModelAnalysis
    theirs = analysis._analyze
    if theirs.__module__ == __name__:
        return

    @functools.wraps(theirs, assigned=('__doc__', '__name__', '__qualname__'))
    def _analyze(self):
        classes = {kind for part in self._model.modules() for kind in type(part).__mro__}
        ours = any(kind.__module__.partition('.')[0] == 'hybrid_mm' for kind in classes)
        if self._stats is not None or not ours:
            return theirs(self)
        with import_module('hybrid_mm.analysis.counters').counted(self):
            return theirs(self)

    analysis._analyze = _analyze


def b10_skip_seen_data(loop) -> bool:
    """B10: MMEngine 0.10.7 loads all earlier batches of a run by iterations that is resumed.

    They are thrown away: hours at the end of a long run. Its sampler is moved on instead, as
    OneDL's MMEngine does. The sampler of a loop that has other ones is left alone.

    https://github.com/open-mmlab/mmengine/issues/1633.
    Remove when mmengine >= 0.10.12 (OneDL's) is required.

    Args:
        loop: The loop, before its first iteration.

    Returns:
        Whether the workaround was needed.
    """
    from torch.utils.data import BatchSampler

    iterator = getattr(loop, 'dataloader_iterator', None)
    if not loop.iter or iterator is None or hasattr(iterator, 'skip_iter'):
        return False
    batches = loop.dataloader.batch_sampler
    sampler = getattr(batches, 'sampler', None)
    skip = skip_of(sampler)
    if type(batches) is not BatchSampler or skip is None:
        return False
    skip(loop.iter * batches.batch_size)
    loop.dataloader_iterator = _AfterSeen(loop.iter, loop.dataloader)
    return True


def skip_of(sampler):
    """Give the function that moves a sampler on by a number of samples; None if it has none.

    MMEngine 0.10.7 has none for its sampler of endless runs, see B10.
    """
    from mmengine.dataset import InfiniteSampler

    if hasattr(sampler, 'skip'):
        return sampler.skip
    if type(sampler) is not InfiniteSampler:
        return None

    def skip(count: int) -> None:
        sampler.indices = islice(sampler._indices_of_rank(), count, None)

    return skip


class _AfterSeen:
    """Batches of a loader after those that were seen, in place of which there is nothing."""

    def __init__(self, seen: int, loader) -> None:
        self._seen, self._loader, self._batches = seen, loader, None

    def __iter__(self):
        return self

    def __next__(self):
        if self._seen:
            self._seen -= 1
            return None
        if self._batches is None:
            self._batches = iter(self._loader)
        return next(self._batches)


def b16_plugins_in_turn() -> bool:
    """B16: of several plugins at one place, MMSegmentation's ResNet applies the last one only.

    Its ``forward_plugin`` gives every plugin the input of the first. Called by our plugins when a
    block of that ResNet builds them: its module is imported by then, and without plugins the
    method is not used.

    No report was found upstream; MMDetection's copy of the method is correct.
    Remove when MMSegmentation's is.

    Returns:
        Whether the workaround was needed.
    """
    module = sys.modules.get('mmseg.models.backbones.resnet')
    if module is None or module.Bottleneck.forward_plugin.__module__ == __name__:
        return False
    if not has_b16():
        return False

    def forward_plugin(self, x, plugin_names):
        for name in plugin_names:
            x = getattr(self, name)(x)
        return x

    module.Bottleneck.forward_plugin = forward_plugin
    return True


def has_b16() -> bool:
    """Whether the installed MMSegmentation has B16, see :func:`b16_plugins_in_turn`."""
    text = read_text('mmseg', 'models/backbones/resnet.py')
    return 'out = getattr(self, name)(x)' in text


def has_b1() -> bool:
    """Whether the installed MMEngine has B1, see :func:`b1_weights_only`."""
    text = read_text('mmengine', 'runner/checkpoint.py')
    return 'torch.load' in text and 'weights_only' not in text and version_of('torch') >= (2, 6)


def has_b6() -> bool:
    """Whether MMSegmentation is a distribution unknown to MMEngine, see B6."""
    return find('mmseg') is not None and not is_installed('mmsegmentation')


def _method(owner: type, name: str):
    """Method of a class of MMEngine that a checkpoint may name."""
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    of_history = owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current')
    of_cycle = owner is OneCycleParamScheduler and name in ('_annealing_cos', '_annealing_linear')
    if not of_history and not of_cycle:
        raise RuntimeError(f'weights_only: GLOBAL getattr of {owner!r}, {name!r} is refused')
    return getattr(owner, name)


def load_from_local(filename: str, map_location=None) -> dict:
    """Load a local checkpoint of torch that holds tensors, plain values and known classes only."""
    import torch
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{filename} can not be found.')
    # a HistoryBuffer pickles its methods as getattr(HistoryBuffer, 'mean'); all else is refused
    # and so does a OneCycleLR its formula
    allowed = [HistoryBuffer, OneCycleParamScheduler, (_method, 'builtins.getattr')]
    allowed += stored_classes()
    trusted = os.environ.get(TRUST, '').lower() in ('1', 'y', 'yes', 'true')
    try:
        if trusted:
            return torch.load(path, map_location=map_location, weights_only=False)
        return safe_loading.load(path, map_location, allowed)
    except safe_loading.NewerTorchError:
        raise
    except Exception as error:
        if 'weights_only' not in str(error).lower():
            raise
        culprit = re.search(r'GLOBAL (\S+)', str(error))
        if culprit is None and re.search('[Uu]nsupported operand|invalid load key', str(error)):
            raise RuntimeError(f'{filename} is not a file of torch, or is damaged') from None
        raise RuntimeError(
            f'{filename} holds {culprit.group(1) if culprit else "objects"} that could run code '
            f'when loaded. If you trust the file, set {TRUST}=1.'
        ) from None


def load_from_http(filename: str, map_location=None, model_dir: str | None = None) -> dict:
    """Download a checkpoint once, see :func:`hybrid_mm.checkpoint_files.load_from_http`.

    That is found by its name when it is needed first: this package imports nothing of ours.
    """
    loader = import_module('hybrid_mm.checkpoint_files').load_from_http
    return loader(filename, map_location, model_dir)


def load_from_hybrid_mm(filename: str, map_location=None) -> dict:
    """Load published weights, see :func:`hybrid_mm.weights.load_by_name`; found as above."""
    return import_module('hybrid_mm.weights').load_by_name(filename, map_location)
