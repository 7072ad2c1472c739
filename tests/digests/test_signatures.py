"""Nobody has changed an argument, a default or an option by accident."""

import pytest

from . import kinds, stored


@pytest.mark.parametrize('name', kinds.marked('signatures'))
def test_signatures(name):
    stored.compare(name, kinds.compute(name))
