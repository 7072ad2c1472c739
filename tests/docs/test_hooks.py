"""The table of layers for CAM: every network is in it, and what it says is so."""

import ast
import copy
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from mmdet.models import ResNet as DetResNet

from hybrid_mm.openmmlab.plugin_resnet import PluginResNet, PluginResNeXt
from hybrid_mm.plugins import AttentionResNet

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location('cases', ROOT / 'tests/backbones/test_all.py')
CONTRACT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CONTRACT)
SMALL = dict(depth=50, base_channels=8, stem_channels=8)
RESNETS = {
    'PluginResNet': lambda: PluginResNet(**SMALL),
    'PluginResNeXt': lambda: PluginResNeXt(**SMALL, groups=2, base_width=8),
    'AttentionResNet': lambda: AttentionResNet(DetResNet, **SMALL),
}
ROW = re.compile(r'\| (`.*`) \| `(.*)` \| ([NCHWL1+()]+)\b[^|]*\|$', re.MULTILINE)
NETWORKS = re.compile(r'(\w+)(?:\((\w+)=(\w+)\))?')


def rows():
    """Class, arguments, layer and layout of every network of the table."""
    text = (ROOT / 'docs/hooks.md').read_text()
    for names, layer, layout in ROW.findall(text):
        for name in re.findall(r'`([^`]+)`', names):
            kind, key, value = NETWORKS.fullmatch(name).groups()
            arguments = {key: ast.literal_eval(value)} if key else {}
            yield pytest.param(kind, arguments, layer, layout.strip(), id=name)


def network(kind, arguments):
    if kind in RESNETS:
        return RESNETS[kind]()
    cases = CONTRACT.CASES.values()
    cfg = copy.deepcopy(next(cfg for cfg in cases if CONTRACT.class_of(cfg) == kind))
    if True in arguments.values():  # a classifier
        arguments = dict(arguments, out_indices=(CONTRACT.stages_of(cfg) - 1,))
    return CONTRACT.build(cfg, **arguments)


def test_every_network_is_in_the_table():
    known = {CONTRACT.class_of(cfg) for cfg in CONTRACT.CASES.values()} | set(RESNETS)
    assert {row.values[0] for row in rows()} == known


@pytest.mark.parametrize(('kind', 'arguments', 'layer', 'layout'), [*rows()])
def test_layer(kind, arguments, layer, layout):
    """It is there, called once, with an output of this layout, and all of that has a gradient."""
    net, seen = network(kind, arguments), []
    net.eval()
    parts = re.findall(r'\w+|-1', layer)
    module = net
    for part in parts:
        module = module[-1] if part == '-1' else getattr(module, part)
    module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    out = net(torch.rand(2, 3, 64, 96))[-1]
    assert len(seen) == 1
    height, width = (4, 6) if kind in ('ViT', 'CvT') else (2, 3)
    shape = seen[0].shape
    sizes = dict(N=2, C=None, H=height, W=width, L=height * width)
    sizes['1+L'] = 1 + height * width
    expected = [sizes[a or b] for a, b in re.findall(r'\((.*?)\)|(\w)', layout)]
    assert len(shape) == len(expected)
    assert all(e in (None, s) for e, s in zip(expected, shape, strict=True)), shape
    (grad,) = torch.autograd.grad(out, seen[0], torch.randn_like(out))
    places = [axis for axis, size in enumerate(expected) if size is None]
    assert (grad.abs().sum(places) > 0).all()
