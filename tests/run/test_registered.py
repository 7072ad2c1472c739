"""Classes that a config names, and their arguments."""

import mmpretrain.registry  # noqa: F401
import pytest
from mmengine.registry import DATASETS, HOOKS, MODELS, DefaultScope

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.run.registered import arguments, nearest_type


class Inner:
    def __init__(self, width=1, depth=2):
        pass


class Middle(Inner):
    def __init__(self, part=None, width=5, **kwargs):
        super().__init__(width=width, **kwargs)


def test_defaults_are_those_of_the_class_itself():
    assert arguments(Middle) == dict(width=5, depth=2, part=None)
    assert arguments(Inner) == dict(width=1, depth=2)

    def function(a, b=3, *args, **kwargs):
        pass

    assert set(arguments(function)) == {'a', 'b'} and arguments(function)['b'] == 3


@pytest.mark.parametrize(('registry', 'scope', 'name', 'hint'), [
    (MODELS, 'mmdet', 'NAT', 'hybrid_mm.NAT'),
    (MODELS, 'mmseg', 'nat', 'hybrid_mm.NAT'),
    (MODELS, 'mmdet', 'mmdet.VAN', 'hybrid_mm.VAN, mmpretrain.VAN'),
    (MODELS, 'mmdet', 'hybrid_mm.HaloNett', 'hybrid_mm.HaloNet'),
    (MODELS, 'mmdet', 'hybrid_mm.VAM', 'hybrid_mm.VAN'),
    (MODELS, 'mmdet', 'HorFPN', 'hybrid_mm.HorFPN'),
    (HOOKS, 'mmdet', 'NonFiniteLossHok', 'hybrid_mm.NonFiniteLossHook'),
    (DATASETS, 'mmseg', 'SeededDataset', 'hybrid_mm.SeededDataset'),
    (MODELS, 'mmdet', 'ResNett', 'ResNet'),
    (MODELS, 'mmdet', 'qwertyuiop', ''),
])  # fmt: skip
def test_hints_name_ours_first(registry, scope, name, hint):
    with (
        DefaultScope.overwrite_default_scope(scope),
        registry.switch_scope_and_registry(None) as node,
    ):
        found = nearest_type(node, name)
    assert found.startswith(f'; did you mean {hint}') if hint else found == ''
