"""What docs/other_runtimes.md says of tools that take a backbone; the contract has the others."""

import copy
import importlib.util
import io
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import VAN
from hybrid_mm.ops.export import for_one_size
from hybrid_mm.registry import MODELS

TORCH = tuple(map(int, torch.__version__.split('.')[:2]))


def program_of(network):
    """As in the documentation."""
    from torch.fx.experimental import _config as tracing  # older torch has none

    size = torch.export.Dim.DYNAMIC
    with torch.no_grad(), tracing.patch(backed_size_oblivious=True):
        return torch.export.export(
            network,
            (torch.rand(2, 3, 65, 99),),
            dynamic_shapes=({0: size, 2: size, 3: size},),
            strict=False,
        )


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(TORCH < (2, 9), reason='older torch was not tried')
def test_a_package_of_aotinductor_takes_any_size(tmp_path):
    if shutil.which('g++') is None:
        pytest.skip('needs a C++ compiler')
    small = dict(embed_dims=[8, 12, 16, 20], depths=[1] * 4, mlp_ratios=[4, 4, 2, 2])
    network = VAN(arch=small, out_indices=(0, 1)).eval()  # the others take as long again
    program = program_of(network)
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / 'backbone.pt2')
        )
        package = torch._inductor.aoti_load_package(path)
        for shape in [(3, 3, 96, 128), (1, 3, 97, 131)]:
            x = torch.rand(*shape)
            for found, wanted in zip(package(x), network(x), strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def cases():
    spec = importlib.util.spec_from_file_location('cases', Path(__file__).with_name('test_all.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


def in_older_format(network, images):
    """A network in the format of the older ONNX exporter, for any number of images."""
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of sizes that become constants, and of deprecation
        torch.onnx.export(
            network, (images,), file, dynamo=False, opset_version=18,
            input_names=['image'], dynamic_axes={'image': {0: 'images'}},
        )  # fmt: skip
    return file.getvalue()


def require_same(network, content, *numbers, size):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(content, options, ['CPUExecutionProvider'])
    for number in numbers:
        x = torch.randn(number, *size)
        with torch.no_grad():
            expected = network(x)
        found = session.run(None, {'image': x.numpy()})
        for a, b in zip(found, expected, strict=True):
            assert (torch.from_numpy(a) - b).abs().max() < 1e-5 * b.abs().max()


class Joined(nn.Module):
    """Axes joined and divided in all places, then the number of images read from the result."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return for_one_size(self._forward, x)

    def _forward(self, x):
        y = self.layer(x.flatten(0, -2)).unflatten(0, (x.shape[0], -1))
        y = self.layer(y.unflatten(1, x.shape[1:3]).flatten(1, 2))
        y = y.unflatten(1, x.shape[1:3])
        return (torch.cat([y.flatten(1), torch.ones(1, 1).expand(y.shape[0], -1)], 1),)


def test_the_older_exporter_leaves_the_number_of_images_open():
    """Of axes that are joined and divided at this size."""
    pytest.importorskip('onnxruntime')
    module = Joined().eval()
    content = in_older_format(module, torch.randn(2, 3, 5, 4))
    require_same(module, content, 1, 2, 3, size=(3, 5, 4))


@pytest.mark.slow
@pytest.mark.parametrize('name', cases())
def test_networks_in_the_older_format(name):
    pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    network = MODELS.build(copy.deepcopy(cases()[name])).eval()
    content = in_older_format(network, torch.randn(1, 3, 64, 96))
    require_same(network, content, 1, 3, size=(3, 64, 96))


def once_per_class():
    """The first case of every class, and SAN's, HorNet's and ViT's other operators."""
    names = {case['type']: name for name, case in reversed(cases().items())}
    return sorted({*names.values(), 'san-patchwise', 'hornet-gf', 'vitdet'})


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(TORCH < (2, 9), reason='programs of torch before 2.9 always check guards')
@pytest.mark.parametrize('name', once_per_class())
def test_programs_of_any_size(name):
    """Guards are of layouts in memory, and results right without them."""
    torch.manual_seed(0)
    network = MODELS.build(copy.deepcopy(cases()[name])).eval()
    module = program_of(network).module(check_guards=False)
    for shape in [(1, 3, 99, 65), (2, 3, 70, 201), (3, 3, 128, 96), (1, 3, 224, 160)]:
        x = torch.rand(*shape)
        with torch.no_grad():
            for a, b in zip(module(x), network(x), strict=True):
                assert a.shape == b.shape
                assert (a - b).abs().max() < 1e-5 * b.abs().max()
