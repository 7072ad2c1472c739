"""The scripts that OpenMMLab's packages bring along, run on our configs."""

import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X' in the config)
from hybrid_mm.compat.category_order import b17_labels_in_order_of_classes
from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.datasets import dataset_class, dataset_classes
from hybrid_mm.run.config import inner_dataset, library_of, require_library
from hybrid_mm.run.foreign import package_configs
from hybrid_mm.run.predictions import SUFFIXES, safe_pickles


def run_upstream(cfg: Config, scripts: dict[str, str], argv: list[str]) -> None:
    """Run the script of the library that a config belongs to, in this process.

    It reads pickles as :func:`hybrid_mm.run.predictions.read_predictions` does.

    Args:
        cfg: Config of a model of the library.
        scripts: Path below the library's ``.mim/tools``, by ``default_scope``.
        argv: Arguments of the script.

    Raises:
        UserError: The library is not installed, or has no such script.
    """
    library = library_of(cfg)
    require_library(cfg)
    if library not in scripts:
        raise UserError(f'{library}, which {cfg.filename} belongs to, has no script for this')
    root = package_configs(library)
    script = root.parent / 'tools' / scripts[library] if root else Path(library)
    if not script.is_file():
        raise UserError(f'{library} is installed without its tools: {script} does not exist')
    previous = sys.argv
    sys.argv = [str(script), *argv]
    try:
        pickles = [word for word in argv if word.endswith(SUFFIXES)]
        with _named_classes(cfg, library), safe_pickles(', '.join(pickles)):
            runpy.run_path(str(script), run_name='__main__')
    finally:
        sys.argv = previous


@contextmanager
def _named_classes(cfg: Config, library: str) -> Iterator[None]:
    """Give the class of the data set the class names that the config gives to its instance.

    MMSegmentation's confusion matrix reads them from the class, where a generic data set has none.
    """
    dataset = inner_dataset(cfg.test_dataloader.dataset)
    with DefaultScope.overwrite_default_scope(library):
        cls = dataset_class(dataset)
        b17_labels_in_order_of_classes()
        named = cls is not None and bool(dataset.get('metainfo'))
        classes = dataset_classes(dataset) if named else {}
    if not named:
        yield
        return
    before, load, own = cls.METAINFO, cls._load_metainfo, vars(cls).get('_load_metainfo')

    def with_tuple(cls: type, metainfo: Any = None) -> dict[str, Any]:
        meta = load(metainfo)
        if isinstance(meta.get('classes'), list):  # MMDetection's script adds a tuple to them
            meta['classes'] = tuple(meta['classes'])
        return meta

    cls.METAINFO = {**before, **classes}
    cls._load_metainfo = classmethod(with_tuple)
    try:
        yield
    finally:
        cls.METAINFO = before
        if own is None:
            del cls._load_metainfo
        else:
            cls._load_metainfo = own
