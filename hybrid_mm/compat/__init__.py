"""Workarounds for known breakages of the OpenMMLab stack, and a diagnosis of an environment.

The same modules (``mmengine``, ``mmcv``, ``mmdet``, ``mmseg``, ``mmpretrain``) come from two
providers, the original OpenMMLab releases and the OneDL builds, so checks here inspect modules and
their files, never distribution names alone. Breakages are numbered B1 to B17; :func:`apply` works
around those that need no action of the user, and :func:`diagnose` reports the others.

Modules import only the standard library at the top: they must work where torch does not.
"""

from hybrid_mm.compat.category_order import b17_labels_in_order_of_classes
from hybrid_mm.compat.diagnosis import Finding, diagnose
from hybrid_mm.compat.installed import MODULES, providers
from hybrid_mm.compat.workarounds import apply, b16_plugins_in_turn

__all__ = [
    'MODULES',
    'Finding',
    'apply',
    'b16_plugins_in_turn',
    'b17_labels_in_order_of_classes',
    'diagnose',
    'providers',
]
