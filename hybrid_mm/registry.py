"""Registries of scope ``hybrid_mm``.

Each is a child of MMEngine's root registry of the same name. ``locations`` names the packages that
register their classes in it, so that ``type='hybrid_mm.VAN'`` in any MMDetection, MMSegmentation or
MMPretrain config works without ``custom_imports``.
"""

from importlib.util import find_spec

from mmengine import registry as root

__all__ = [
    'DATASETS',
    'DATA_SAMPLERS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'MODEL_WRAPPERS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'TRANSFORMS',
]

_SCOPE = 'hybrid_mm'


def _child(parent: root.Registry, *locations: str) -> root.Registry:
    return root.Registry(
        parent.name,
        parent=parent,
        scope=_SCOPE,
        locations=[f'{_SCOPE}.{location}' for location in locations],
    )


# plugins take their norms from mmcv, without which there is no ResNet for them
MODELS = _child(root.MODELS, 'backbones', *(['plugins'] if find_spec('mmcv') else []), 'openmmlab')
DATASETS = _child(root.DATASETS, 'data')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'data')
TRANSFORMS = _child(root.TRANSFORMS, 'data')
METRICS = _child(root.METRICS, 'evaluation')
HOOKS = _child(root.HOOKS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS, 'engine')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'engine')
