"""Data sets are small: no garbage is collected for each."""

import pytest


@pytest.fixture(autouse=True)
def _plain(plain_runs):
    pass
