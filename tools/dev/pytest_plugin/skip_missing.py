"""For pytest: a test that needs a package which is not installed is skipped, with its name.

``matrix.py`` names this to pytest (``-p``), so that tests over all networks run without mmcv.
"""

from importlib.util import find_spec

import pytest

PACKAGES = ('mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'triton', 'onnx', 'ruff', 'sphinx')


def missing(error: BaseException | None) -> str:
    """Name of the package that an import did not find, where it is not installed, or ''."""
    while error is not None:
        name = (getattr(error, 'name', None) or '').partition('.')[0]
        if isinstance(error, ImportError) and name in PACKAGES and find_spec(name) is None:
            return name
        error = error.__cause__
    return ''


def _skip(call, report) -> None:
    name = missing(call.excinfo.value) if call.excinfo else ''
    if report.outcome == 'failed' and name:
        report.outcome, report.longrepr = 'skipped', ('', 0, f'Skipped: needs {name}')


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Report of a test or of what it needs."""
    report = yield
    _skip(call, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Report of a file whose import failed."""
    report = yield
    if report.outcome == 'failed' and (call := getattr(report, 'call', None)):
        _skip(call, report)
    return report
