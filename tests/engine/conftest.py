"""Runs here are of few iterations, without the slow parts of MMEngine's set-up."""

import pytest


@pytest.fixture(autouse=True)
def _plain(plain_runs):
    pass
