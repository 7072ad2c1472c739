"""Any arguments and any image: promised maps, or a ValueError that says what is wrong.

The examples are the same in every run (``derandomize``); ``HYPOTHESIS_PROFILE=long`` draws more,
and other ones each time.
"""

import importlib.util
import inspect
import math
import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybrid_mm.registry import MODELS
from hybrid_mm.run.registered import arguments

PATH = Path(__file__).resolve().parents[1] / 'backbones' / 'test_all.py'


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTRACT = load(PATH, 'contract_of_backbones')
CASES = CONTRACT.CASES

COMMON = dict(deadline=None, suppress_health_check=list(HealthCheck), database=None)
settings.register_profile('ci', derandomize=True, **COMMON)
settings.register_profile('long', **COMMON)
PROFILE = os.environ.get('HYPOTHESIS_PROFILE', 'ci')
settings.load_profile(PROFILE)


def examples(number: int):
    return settings(max_examples=number * (20 if PROFILE == 'long' else 1))


def check_maps(model, cfg: dict, image: torch.Tensor) -> None:
    """Finite maps of the promised number, widths and sizes."""
    with torch.no_grad():
        maps = model(image)
    assert len(maps) == len(model.out_indices) == len(model.out_channels)
    for index, channels, out in zip(model.out_indices, model.out_channels, maps, strict=True):
        assert out.shape[:2] == (len(image), channels)
        assert out.isfinite().all()
        if not set(cfg) & {'strides', 'dilations', 'pooled'}:
            stride = CONTRACT.strides(cfg)[index]
            sizes = [CONTRACT.rows(cfg, side, stride) for side in image.shape[2:]]
            assert list(out.shape[2:]) == sizes


def build(cfg: dict):
    torch.manual_seed(0)
    return MODELS.build(cfg)


@st.composite
def shared_arguments(draw, stages):
    """Arguments that all backbones of so many stages take, and whether they are right."""
    indices = draw(st.lists(st.integers(-stages - 1, stages), max_size=4))
    frozen = draw(st.integers(-2, stages + 1))
    rate = draw(st.sampled_from([0.0, 0.1, 0.5, 0.999, 1.0, -0.1, 2.0, math.nan]))
    channels = draw(st.sampled_from([3, 3, 3, 1, 4, 0, -1]))
    right = (
        0 < len(indices) == len({i % stages for i in indices})
        and all(-stages <= i < stages for i in indices)
        and -1 <= frozen <= stages
        and 0 <= rate < 1
        and channels > 0
    )
    kwargs = dict(
        out_indices=tuple(indices),
        frozen_stages=frozen,
        drop_path_rate=rate,
        in_channels=channels,
        norm_eval=draw(st.booleans()),
        with_cp=draw(st.booleans()),
    )
    return kwargs, right


def shared_arguments_of(name, data):
    kwargs, right = data.draw(shared_arguments(CONTRACT.stages_of(CASES[name])))
    cfg = {**CASES[name], **kwargs}
    if not right:
        with pytest.raises(ValueError, match=r'out_indices|frozen_stages|drop_path|in_channels'):
            build(cfg)
        return
    size = data.draw(st.tuples(st.integers(32, 80), st.integers(32, 80)))
    model = build(cfg).train(data.draw(st.booleans()))
    check_maps(model, cfg, torch.rand(2, cfg['in_channels'], *size))


@pytest.mark.parametrize('name', CASES)
@examples(3)
@given(data=st.data())
def test_shared_arguments(name, data):
    shared_arguments_of(name, data)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
@examples(8)
@given(data=st.data())
def test_many_shared_arguments(name, data):
    shared_arguments_of(name, data)


def values_like(value):
    """Good and bad values of the type of an argument."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 8])
    if isinstance(value, float):
        return st.sampled_from([-0.5, 0.0, 0.3, 1.0, 3.0, math.nan, math.inf])
    if isinstance(value, str):
        return st.sampled_from(['nonsense', '', value])
    if isinstance(value, list | tuple) and value:
        items = st.lists(values_like(value[0]), max_size=5)
        return st.one_of(items.map(type(value)), st.just(value))
    return st.just(value)


@st.composite
def own_arguments(draw, cfg):
    """The config of a case with one to three of its arguments changed."""
    defaults = arguments(MODELS.get(cfg['type']))
    defaults = {k: v for k, v in defaults.items() if v is not inspect.Parameter.empty}
    known = {**defaults, **cfg}
    for name in ('type', 'init_cfg', 'in_channels'):
        known.pop(name, None)
    arch = known.pop('arch')
    names = [*known, *([f'arch.{key}' for key in arch] if isinstance(arch, dict) else [])]
    changed = dict(cfg)
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        key = name.partition('.')[2]
        if key:
            new = draw(values_like(arch[key]))
            changed['arch'] = {**changed['arch'], key: new}
        else:
            changed[name] = draw(values_like(known[name]))
    return changed


def own_arguments_of(name, data):
    cfg = data.draw(own_arguments(CASES[name]))
    try:
        check_maps(build(cfg).eval(), cfg, torch.rand(1, 3, 40, 52))
    except ValueError as error:  # of the layers that see a size first, at first use
        assert len(str(error)) > 15  # it says something


@pytest.mark.parametrize('name', CASES)
@examples(5)
@given(data=st.data())
def test_own_arguments(name, data):
    own_arguments_of(name, data)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
@examples(20)
@given(data=st.data())
def test_many_own_arguments(name, data):
    own_arguments_of(name, data)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('shape', [(3, 64, 64), (1, 4, 64, 64), (2, 1, 64, 64)], ids=str)
def test_images_of_another_shape(name, shape):
    with pytest.raises(ValueError, match=r'takes images \(N, 3, H, W\), got'):
        build(CASES[name])(torch.rand(shape))


@pytest.mark.parametrize('name', CASES)
def test_arguments_that_do_not_exist(name):
    with pytest.raises(TypeError, match="'kernel_sise'"):
        build({**CASES[name], 'kernel_sise': 3})


# -- values of another type ------------------------------------------------------------------------

LAYERS = load(PATH.parents[1] / 'layers' / 'test_options.py', 'options_of_layers')
WRONG = ['x', 1.5, -1, None, True, [], [1] * 7, {'a': 1}, ['x'] * 4, [None] * 4, math.nan, b'3']


def wrong_types(make, names, values):
    """Make something with every argument wrong in turn; arguments that no message names."""
    silent = []
    for name in names:
        for value in values:
            try:
                make(name, value)
            except (ValueError, TypeError) as error:
                if name not in str(error):
                    silent.append((name, value, str(error)))
    return silent


# what does not name the argument: what fits on its own, but not to something else
BETWEEN = re.compile(
    r'out_indices must be distinct stages'  # another number of stages
    r'|img_size must be one number or two, from \d+ on for 7 stages'
    r'|needs channels that \d+ divides'  # width_factor
)


def types_of_network(name, values):
    cfg = CASES[name]
    arch = cfg.get('arch') if isinstance(cfg.get('arch'), dict) else {}
    names = [key for key in arguments(MODELS.get(cfg['type'])) if key != 'init_cfg']

    def make(key, value):
        build({**cfg, key: value} if key in names else {**cfg, 'arch': {**arch, key: value}})

    silent = wrong_types(make, [*names, *(key for key in arch if key not in names)], values)
    assert not [row for row in silent if not BETWEEN.search(row[2])]


@pytest.mark.parametrize(
    'name', {CONTRACT.class_of(cfg): name for name, cfg in CASES.items()}.values()
)
def test_wrong_types_of_networks(name):
    number = sorted(CASES).index(name)
    types_of_network(name, [WRONG[(number + i) % len(WRONG)] for i in range(0, len(WRONG), 4)])


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_all_wrong_types_of_networks(name):
    types_of_network(name, WRONG)


@pytest.mark.parametrize('kind', LAYERS.OPTIONS, ids=lambda kind: kind.__name__)
def test_wrong_types_of_layers(kind):
    _, base, others = LAYERS.OPTIONS[kind]
    names = {*base, *others}
    silent = wrong_types(lambda name, value: kind(**{**base, name: value}), sorted(names), WRONG)
    assert not [row for row in silent if not BETWEEN.search(row[2])]


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(norm_eval='false'), "norm_eval must be True or False, got 'false'"),
        (dict(arch='q'), r"VAN has no arch 'q'"),
        (dict(arch='smal'), "did you mean 'small'"),
        (dict(norm_cfg=dict(type='BN3')), "norm_cfg type must be one of .*'BN3'; did you mean BN"),
        (dict(norm_cfg=dict(type='BN', mometum=1)), "unknown key 'mometum'; did you mean momentum"),
        (dict(attention='lca'), "unknown attention 'lca'"),
    ],
)
def test_messages_of_wrong_values(cfg, message):
    with pytest.raises(ValueError, match=message):
        build(dict(CASES['van-lka'], **cfg))
