"""Tools called in this process."""

import importlib.util
from pathlib import Path

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

ROOT = Path(__file__).resolve().parents[2]


def load_tool(name: str):
    """Module of ``tools/NAME.py``."""
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _forget_runs() -> None:
    """Drop MMEngine's global instances, which a new process would not have."""
    managed = [MMLogger, MessageHub, DefaultScope, Visualizer]
    while managed:
        cls = managed.pop()
        managed += cls.__subclasses__()
        cls._instance_dict.clear()


@pytest.fixture
def tool(capsys, monkeypatch):
    """Call ``tools/NAME.py`` with arguments; return its status and what it wrote to stderr."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')

    def call(name: str, *argv) -> tuple[int, str]:
        _forget_runs()
        capsys.readouterr()
        status = load_tool(name).main([str(arg) for arg in argv])
        return status, capsys.readouterr().err

    yield call
    _forget_runs()


@pytest.fixture
def fails(tool):
    """Call a tool that must end with one ``error:`` line and status 2; return that text."""

    def call(name: str, *argv) -> str:
        status, err = tool(name, *argv)
        assert status == 2, err
        assert 'Traceback' not in err
        errors = [line for line in err.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1, err
        return err[err.index('error: ') :]

    return call
