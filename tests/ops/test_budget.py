"""Working memory of operators."""

import torch

from hybrid_mm.ops import budget

CPU, META = torch.device('cpu'), torch.device('meta')


def test_chunks_cover_everything_once():
    for count in range(1, 12):
        for size in range(1, 14):
            covered = [i for part in budget.chunks(count, size) for i in range(count)[part]]
            assert covered == list(range(count))
            assert all(part.stop <= count for part in budget.chunks(count, size))


def test_items_that_fit():
    whole = budget.elements(CPU)
    assert budget.fitting(100, whole // 7, CPU) == 7
    assert budget.fitting(5, whole // 7, CPU) == 5
    assert budget.fitting(5, 2 * whole, CPU) == 1
    assert budget.elements(META) > whole


def test_limit_ends_with_its_block():
    before = budget.elements(CPU)
    with budget.limited(10):
        assert budget.fitting(100, 3, CPU) == 3
        with budget.limited(4):
            assert budget.elements(META) == 4
        assert budget.elements(CPU) == 10
    assert budget.elements(CPU) == before
