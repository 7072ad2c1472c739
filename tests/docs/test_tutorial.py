"""The pages for authors of networks, followed literally in a copy of the project."""

import os
import shutil
import subprocess
import sys

import pytest

from .blocks import ROOT, blocks, commands

PAGES = {
    name: list(blocks(ROOT / f'docs/{name}.md')) for name in ('add_a_backbone', 'add_an_operator')
}
NEEDS_COCO = 'tools/train.py'
LATER = (
    *('tests/configs/test_configs.py', 'tools/complexity.py', 'tools/benchmark.py'),
    *('tests/ops/test_axial_attention.py', 'tests/layers/test_strip_mixer.py'),
)
MINUTES = ['python', 'tools/benchmark.py', 'hybrid_mm.benchmarks.axial']


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """The project with the files of the pages."""
    folder = tmp_path_factory.mktemp('project')
    for name in ('hybrid_mm', 'configs', 'tests', 'tools'):
        ignored = shutil.ignore_patterns('__pycache__', 'golden', '.mim')
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ('pyproject.toml', 'model-index.yml', 'README.md'):
        shutil.copy(ROOT / name, folder)
    for block in (block for page in PAGES.values() for block in page):
        if not block.title:
            continue
        file = folder / block.title
        if block.after:
            head, line, tail = file.read_text().partition(f'\n{block.after}\n')
            assert line, f'{block.title} has no line {block.after!r}'
            file.write_text(head + line + block.text + tail)
        else:
            assert not file.exists(), f'{block.title} exists'
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text)
    return folder


def test_every_python_block_has_its_file():
    found = [block for page in PAGES.values() for block in page]
    assert [str(b) for b in found if b.language == 'python' and not b.title] == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    'command',
    [
        pytest.param(
            words,
            # the tests of the new layer and network say whether the page is right
            marks=[pytest.mark.slow] * any(word in LATER for word in words),
            id=' '.join(words[1:4]),
        )
        for page in PAGES.values()
        for block in page
        if block.language == 'bash'
        for words in commands(block.text)
        if words[1] != NEEDS_COCO and words != MINUTES
    ],
)
def test_commands(project, command):
    assert command[0] == 'python'
    environment = dict(
        os.environ, PYTHONPATH=str(project), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''
    )
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if 'pytest' in command:
        summary = done.stdout.strip().splitlines()[-1]
        assert ' passed' in summary
        print(summary)


def test_the_config_is_found_as_a_file_of_the_page(project):
    """The last command of the page trains the config that the tests have stepped through."""
    page = PAGES['add_a_backbone']
    trained = [w for b in page if b.language == 'bash' for w in commands(b.text) if NEEDS_COCO in w]
    assert [(project / words[2]).exists() for words in trained] == [True]
