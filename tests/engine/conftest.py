"""Runs of the hooks are short: their set-up is, too."""

import pytest


@pytest.fixture(autouse=True)
def _plain(plain_runs):
    pass
