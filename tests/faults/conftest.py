"""Copies of the tiny data sets, to be broken."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def coco(tiny_coco, tmp_path) -> Path:
    """A copy of ``tiny_coco``."""
    return Path(shutil.copytree(tiny_coco, tmp_path / 'coco'))


@pytest.fixture
def ade(tiny_ade, tmp_path) -> Path:
    """A copy of ``tiny_ade``."""
    return Path(shutil.copytree(tiny_ade, tmp_path / 'ade'))
