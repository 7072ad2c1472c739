"""tools/dev/check_files.py, the hooks of pre-commit, and CITATION.cff."""

import importlib.util
import shlex
from pathlib import Path

import pytest
import yaml

from hybrid_mm.version import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'a\nb\n', ''),
        (b'', ''),
        (b'\0\r\n ', ''),  # not text
        (b'a \nb\n', '1: blanks at the end'),
        (b'a\nb', '2: the file must end'),
        (b'a\n\n', '1: the file must end'),
        (b'a\r\n', "1: Windows' end of line"),
        (b'a\n<<<<<<< HEAD\n', '2: mark of a merge'),
        (b'a' * (1 << 20) + b'\n', '1048577 bytes, more than'),
    ],
)
def test_check_files(tmp_path, capsys, content, message):
    spec = importlib.util.spec_from_file_location('check_files', ROOT / 'tools/dev/check_files.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    file = tmp_path / 'file.txt'
    file.write_bytes(content)
    assert module.main([str(file)]) == int(bool(message))
    out = capsys.readouterr().out
    assert message in out if message else not out


def test_hooks_of_pre_commit_exist():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    for repo in config['repos']:
        assert repo['repo'] == 'local', 'hooks of other repositories need a network'
        for hook in repo['hooks']:
            for word in shlex.split(hook['entry']):
                if word.endswith('.py'):
                    assert (ROOT / word).exists(), word


def test_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == __version__.split('+')[0]
