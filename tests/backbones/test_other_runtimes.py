"""What docs/other_runtimes.md says of tools that take a backbone; the contract has the others."""

import shutil

import pytest
import torch

from hybrid_mm.backbones import VAN

TORCH = tuple(map(int, torch.__version__.split('.')[:2]))


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(TORCH < (2, 6), reason='torch before 2.6 makes no such packages')
def test_a_package_of_aotinductor_takes_any_size(tmp_path):
    if shutil.which('g++') is None:
        pytest.skip('needs a C++ compiler')
    small = dict(embed_dims=[8, 12, 16, 20], depths=[1] * 4, mlp_ratios=[4, 4, 2, 2])
    network = VAN(arch=small).eval()
    size = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.export.export(
            network, (torch.rand(2, 3, 64, 96),), dynamic_shapes=({0: size, 2: size, 3: size},)
        )
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / 'backbone.pt2')
        )
        package = torch._inductor.aoti_load_package(path)
        for shape in [(3, 3, 96, 128), (1, 3, 97, 131)]:
            x = torch.rand(*shape)
            for found, wanted in zip(package(x), network(x), strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
