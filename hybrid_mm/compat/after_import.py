"""Workarounds that come with the import of the module that they are for.

``import hybrid_mm`` imports nothing of MMEngine, and yet no function of MMEngine is used before its
workaround is in place: a workaround is applied at once if its module is imported, else at the end
of the import of that module, whoever imports it and when. Those of :data:`DURING` hold while a
module is being imported, for what it checks or says then. Nothing but ``sys`` and ``importlib``
is needed for that.
"""

import sys
from importlib import import_module

WORKAROUNDS = {
    'mmengine.runner.checkpoint': 'b1_weights_only',
    'mmengine.config.utils': 'b6_config_packages',
    'mmengine.analysis.jit_analysis': 'counters_of_mmengine',
    'fvcore.nn.jit_analysis': 'counters_of_fvcore',
}
"""Modules, and the function of ``hybrid_mm.compat.workarounds`` that changes each of them."""
DURING = dict.fromkeys(('mmdet', 'mmseg', 'mmdet3d', 'mmaction', 'mmrotate'), 'b5_mmcv_version')
"""Modules, and the context manager there within which each of them is imported."""
DURING['torch.distributed.optim'] = 'without_word_of_functional_optimizers'


def apply() -> None:
    """Apply the workarounds of what is imported, and those of all else when it is imported.

    Called by ``import hybrid_mm``. Never raises, see :func:`work_around`.
    """
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    for name in WORKAROUNDS:
        if name in sys.modules:
            import_module(name)  # waits for another thread that is at it
            work_around(name)


def work_around(name: str) -> None:
    """Apply the workaround of an imported module.

    In a broken environment the failing import itself gives a better error: an exception is printed
    in one line.
    """
    try:
        getattr(import_module('hybrid_mm.compat.workarounds'), WORKAROUNDS[name])()
    except Exception as error:
        print(f'hybrid_mm: {WORKAROUNDS[name]} not applied: {error}', file=sys.stderr)


class Finder:
    """Meta path finder that lets the later ones find a module, and adds its workaround."""

    def find_spec(self, name: str, path=None, target=None):
        """Spec of a module with a workaround; None for all others, which is nearly all."""
        if not (name in WORKAROUNDS or name in DURING) or self not in sys.meta_path:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader:
    """A loader with the workaround around or after it; the module keeps the loader itself."""

    def __init__(self, loader) -> None:
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        name = module.__spec__.name
        module.__spec__.loader = module.__loader__ = self._loader
        if name in DURING:
            workaround = getattr(import_module('hybrid_mm.compat.workarounds'), DURING[name])
            with workaround():
                self._loader.exec_module(module)
        else:
            self._loader.exec_module(module)
            work_around(name)

    def __getattr__(self, name: str):
        """All else that ``importlib.util.find_spec`` is asked for, as the source."""
        if name == '_loader':  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._loader, name)
