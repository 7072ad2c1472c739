"""Types under autocast."""

import torch

from hybrid_mm.ops.precision import accurate, cast_as_autocast, no_autocast


def test_tensors_are_cast_as_for_a_matrix_product():
    types = torch.float32, torch.float16, torch.float64, torch.int64
    tensors = [torch.ones(2, 2).to(dtype) for dtype in types]
    assert [x.dtype for x in cast_as_autocast(*tensors)] == list(types)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = [x.dtype for x in cast_as_autocast(*tensors)]
        assert cast[:3] == [(x @ x).dtype for x in tensors[:3]]
        assert cast == [torch.bfloat16, torch.bfloat16, torch.float64, torch.int64]
        with no_autocast(tensors[0]):
            assert cast_as_autocast(tensors[0])[0].dtype == torch.float32
    assert cast_as_autocast(tensors[0].to('meta'))[0].dtype == torch.float32


def test_accurate_types():
    expected = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert accurate(torch.ones(1, dtype=dtype)).dtype == expected.get(dtype, dtype)
