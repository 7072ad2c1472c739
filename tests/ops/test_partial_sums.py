import pytest
import torch

from hybrid_mm.ops.partial_sums import PartialSums


@pytest.mark.parametrize('parts', [1, 32, 45])
def test_sums_of_the_parameters_that_are_there(interpreter, parts):
    parameters = torch.ones(3, 5), None, torch.ones(33).half(), torch.ones(1)
    sums = PartialSums(parameters, parts, torch.device('cpu'))
    sums.memory = torch.randn(parts, 49)
    assert sums.place(1) is None
    assert [sums.place(i)[0, 0] for i in (0, 2, 3)] == [sums.memory[0, i] for i in (0, 15, 48)]
    found = sums.total()
    expected = sums.memory.sum(0).split([15, 33, 1])
    for x, y, parameter in zip(found, expected, (parameters[0], *parameters[2:]), strict=True):
        assert x.dtype == parameter.dtype
        assert x.shape == parameter.shape
        torch.testing.assert_close(x.float().flatten(), y, rtol=2e-3, atol=1e-4)
