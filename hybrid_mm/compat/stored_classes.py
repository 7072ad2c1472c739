"""Classes that checkpoints may name besides those that torch's safe loading knows.

Training programs store their settings beside the weights. A class stands here for itself only if
making one does nothing but store values; for all others stands a class of ours that keeps the
values: a package that a file names is not imported, and no code of it runs.
"""

import argparse
import datetime
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any


class Settings:
    """Stands for a dict with attributes, such as ``yacs.config.CfgNode``."""

    def __new__(cls, *content: Any) -> OrderedDict:  # type: ignore[misc]
        """Make the only dict that torch gives both items and attributes."""
        return OrderedDict(*content)


class Record:
    """Stands for an object of which only the attributes are of interest."""

    def __new__(cls, *arguments: Any) -> 'Record':
        """Make one; what the class would do with its arguments is not known."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Keep the attributes, or as `state` what the class would make them of."""
        self.__dict__.update(state if isinstance(state, dict) else dict(state=state))


def _value(value: Any) -> Any:
    """Stands for an enumeration."""
    return value


def _empty(*factory: Any) -> dict:
    """Stands for a ``defaultdict``."""
    return {}


def _list(*content: Any) -> list:
    """Stands for a ``deque``, whose items follow."""
    return []


def _no_bytes() -> bytes:
    """Stands for ``bytes``, which files call for empty ones, also those of an empty array."""
    return b''


def _nothing(*values: Any) -> None:
    """Stands for a type that is named as a value, such as the factory of a ``defaultdict``."""


_DTYPES = (
    *('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64'),
    *('float16', 'float32', 'float64', 'complex64', 'complex128', 'str', 'bytes'),
)
_SETTINGS = (
    *('yacs.config.CfgNode', 'fvcore.common.config.CfgNode', 'iopath.common.config.CfgNode'),
    *('detectron2.config.config.CfgNode', 'detectron2.config.CfgNode', 'addict.addict.Dict'),
    *('mmcv.utils.config.ConfigDict', 'mmengine.config.config.ConfigDict', 'easydict.EasyDict'),
    *('munch.Munch', 'timm.utils.misc.AttrDict'),
)
_OMEGACONF = (
    *('dictconfig.DictConfig', 'listconfig.ListConfig', 'base.ContainerMetadata'),
    *('base.Metadata', 'nodes.AnyNode', 'nodes.StringNode', 'nodes.IntegerNode'),
    *('nodes.FloatNode', 'nodes.BooleanNode', 'nodes.PathNode', 'nodes.BytesNode'),
)
_RECORDS = (
    *(f'omegaconf.{name}' for name in _OMEGACONF),
    *('mmengine.config.config.Config', 'mmcv.utils.config.Config', 'typing.Any', 'uuid.UUID'),
    *(f'ml_collections.config_dict.config_dict.{kind}ConfigDict' for kind in ('', 'Frozen')),
    *('decimal.Decimal', 'fractions.Fraction', 'builtins.range', 'builtins.slice'),
)
_ENUMS = ('torchvision.transforms.functional.InterpolationMode', 'PIL.Image.Resampling')
_TYPES = ('dict', 'list', 'tuple', 'int', 'float', 'str', 'bool', 'object')


def numpy_core() -> Any:
    """Module of the functions with which NumPy pickles arrays; another in NumPy 1 and 2."""
    import numpy as np

    return np.core if np.__version__ < '2' else getattr(np, '_core')  # noqa: B009


def stored_classes() -> list[Any]:
    """Give what ``torch.serialization.safe_globals`` takes: classes, or pairs with a name."""
    import numpy as np

    core = numpy_core()
    found: list[Any] = [argparse.Namespace, types.SimpleNamespace, frozenset, np.ndarray, np.dtype]
    found += [datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone]
    found += [datetime.time]
    found += [type(np.dtype(name)) for name in _DTYPES]
    for package in ('numpy.core', 'numpy._core'):
        for name in ('_reconstruct', 'scalar'):
            found.append((getattr(core.multiarray, name), f'{package}.multiarray.{name}'))
    named: dict[Callable[..., Any], tuple[str, ...]] = {
        Settings: _SETTINGS,
        Record: _RECORDS,
        _value: _ENUMS,
        _empty: ('collections.defaultdict',),
        _list: ('collections.deque',),
        _no_bytes: ('builtins.bytes',),
        _nothing: tuple(f'builtins.{name}' for name in _TYPES)
        + tuple(f'numpy.{np.dtype(name).type.__name__}' for name in _DTYPES),
    }
    for system, kind in (('Posix', PurePosixPath), ('Windows', PureWindowsPath)):
        named[kind] = tuple(
            f'{module}.{pure}{system}Path'
            for module in ('pathlib', 'pathlib._local')
            for pure in ('', 'Pure')
        )
    return found + [(stand_in, name) for stand_in, names in named.items() for name in names]
