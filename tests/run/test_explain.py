"""One line for what a wrong config raises."""

import pytest
from mmengine.registry import Registry, build_from_cfg

from hybrid_mm.run.explain import explain

PARTS = Registry('part', scope='test_explain')


@PARTS.register_module()
class Inner:
    def __init__(self, width=1, depth=2):
        if width < 0:
            raise ValueError('width is negative')


@PARTS.register_module()
class Middle(Inner):
    def __init__(self, part=None, width=5, **kwargs):
        super().__init__(width=width, **kwargs)
        self.part = part and PARTS.build(part)


@PARTS.register_module()
class Outer:
    def __init__(self, part):
        self.part = PARTS.build(part)


@pytest.mark.parametrize(('inner', 'expected'), [
    (dict(type='Inner', widht=3), "Inner has no argument 'widht'; did you mean width?"),
    (dict(type='Inner', width=-3), 'cannot build Inner: width is negative'),
    (dict(type='Iner'), "type 'Iner' is not a registered part; did you mean Inner?"),
    (dict(type='Middle', dept=1), "Middle has no argument 'dept'; did you mean depth?"),
])  # fmt: skip
def test_the_innermost_part_is_named(inner, expected):
    for spec in (
        inner,
        dict(type='Outer', part=inner),
        dict(type='Middle', part=dict(type='Outer', part=inner)),
    ):
        with pytest.raises((TypeError, ValueError, KeyError)) as caught:
            build_from_cfg(spec, PARTS)
        text = explain(caught.value)
        assert text is not None and text.startswith(expected), text


def test_other_errors_keep_their_traceback():
    for error in (RuntimeError('x'), ValueError('x')):
        with pytest.raises(type(error)) as caught:
            raise error
        assert explain(caught.value) is None

    def backward():
        raise RuntimeError('a fault of ours')

    PARTS.register_module(name='backward', module=backward, force=True)
    with pytest.raises(RuntimeError) as caught:
        build_from_cfg(dict(type='backward'), PARTS)
    assert explain(caught.value) is None


@pytest.mark.parametrize(
    'name, expected',
    [
        ('yaml', 'yaml is not installed; it comes with the OpenMMLab packages'),
        ('mmcv._ext', 'mmcv was installed without its operators'),
    ],
)
def test_a_missing_package_of_the_stack_is_named(name, expected):
    assert explain(ModuleNotFoundError(f"No module named '{name}'", name=name)).startswith(expected)


@pytest.mark.parametrize('name', ['my_net', 'mmdet.models.nothing'])
def test_other_missing_modules_keep_their_traceback(name):
    assert explain(ModuleNotFoundError(f"No module named '{name}'", name=name)) is None
