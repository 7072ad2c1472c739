"""Every command and snippet of README.md, CONTRIBUTING.md, docs/ and the READMEs of the trees.

A command is checked (programs, files, flags, keys of configs) and then run on tiny data and
networks if its tool is in ``RUN``; a Python block with imports is run, one without is the part of a
config. A block that nobody knows how to check fails. ``<!-- test: not run: REASON -->`` in front of
a block leaves it at the checks.
"""

import functools
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import FlexibleRunner

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.run.checks.overrides import check_options
from hybrid_mm.run.config import load_config, nodes, task_of
from hybrid_mm.run.registered import arguments, registered_class

from .blocks import PAGES, PLACEHOLDER, ROOT, blocks, commands, inline_commands, without_blocks
from .commands import Checker

RUN = {
    # tools that run here, and what makes them quick
    'tools/check_env.py': [],
    'tools/complexity.py': [],
    'tools/convert_checkpoint.py': [],
    'tools/dev/generate_docs.py': ['--check'],
    'tools/predict.py': [],
    'tools/print_config.py': [],
    'tools/publish_model.py': [],
    'tools/test.py': [],
    'tools/train.py': [],
    'tools/analysis/browse_dataset.py': [],
    'tools/analysis/compare_members.py': ['--rounds', '1', '--shape', '64', '64'],
    'tools/analysis/plot_curves.py': [],
}
TESTED_ELSEWHERE = {
    '-m hybrid_mm': 'tests/zoo/test_commands.py',
    'tools/benchmark.py': 'tests/tools/test_benchmark.py',
    'tools/dev/build_docs.py': 'tests/docs/test_site.py',
    'tools/demo.py': 'tests/tools/test_demo.py',
    'tools/study.py': 'tests/tools/test_study.py',
    'tools/gpu_check.py': 'tests/tools/test_gpu_check.py',
    'tools/dev/check_release.py': 'tests/test_release.py',
    'tools/dev/count_kernels.py': 'tests/tools/test_dev.py',
    'tools/dev/kernel_report.py': 'tests/tools/test_kernel_report.py',
    'tools/dev/matrix.py': 'tests/tools/test_matrix.py',
    'tools/dev/mutants.py': 'tests/tools/test_dev.py',
    'tools/dev/onnx_pairs.py': 'tests/tools/test_onnx_pairs.py',
    'tools/dev/select_tests.py': 'tests/tools/test_dev.py',
    'tools/export_onnx.py': 'tests/tools/test_export_onnx.py',
    'tools/quantize_onnx.py': 'tests/tools/test_quantize_onnx.py',
    'tools/reparameterize.py': 'tests/tools/test_reparameterize.py',
    'tools/analysis/acmix_cost.py': 'tests/analysis/test_acmix.py',
    'tools/analysis/compare.py': 'tests/tools/test_compare.py',
    'tools/analysis/confusion_matrix.py': 'tests/tools/test_other_tools.py',
    'tools/analysis/kernel_size.py': 'tests/tools/test_kernel_size_and_report.py',
    'tools/analysis/mixing_rates.py': 'tests/analysis/test_acmix.py',
    'tools/analysis/receptive_field.py': 'tests/tools/test_receptive_field.py',
    'tools/analysis/report.py': 'tests/tools/test_kernel_size_and_report.py',
    'tools/analysis/robustness.py': 'tests/tools/test_robustness.py',
    'tools/analysis/shape_texture.py': 'tests/tools/test_shape_texture.py',
    'tools/analysis/texture_knn.py': 'tests/tools/test_shape_texture.py',
    'tools/dev/digests.py': 'tests/digests/test_digests.py',
    'tests/golden/check.py': 'tests/golden/test_check.py',
}
"""Tools whose commands are checked only, and the tests that run them."""
ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in ALL_BLOCKS if block.language == 'python']
by_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.fixture(scope='session')
def written(tmp_path_factory):
    """Folder of the new files that a page has its readers write, beside the configs."""
    folders = {}

    def folder(page: str) -> Path:
        if page not in folders:
            folders[page] = root = tmp_path_factory.mktemp('page')
            (root / 'configs').mkdir()
            for tree in (ROOT / 'configs').iterdir():
                (root / 'configs' / tree.name).symlink_to(tree)
            for block in PYTHON:
                if block.page == page and block.title and not block.after:
                    file = root / block.title
                    assert not file.exists(), f'{block}: {block.title} exists'
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(block.text)
        return folders[page]

    return folder


def test_tools_tested_elsewhere_are():
    for script, test in TESTED_ELSEWHERE.items():
        assert script.startswith('-m ') or (ROOT / script).exists(), script
        name = Path(script.removeprefix('-m ')).stem
        assert name in (ROOT / test).read_text(), f'{test} says nothing of {name}'


@by_page
def test_blocks_can_be_checked(page, written):
    """Languages are known, commands and data well-formed."""
    name = page.relative_to(ROOT).as_posix()
    checker = Checker(written(name))
    for block in blocks(page):
        if block.language == 'bash':
            for command in commands(block.text):
                try:
                    found = checker.check(command)
                except Exception as error:
                    raise AssertionError(f'{block}: {" ".join(command)}: {error}') from error
                for script, _ in found:
                    known = script in RUN or script in TESTED_ELSEWHERE
                    assert known, f'{block}: put {script} into RUN or TESTED_ELSEWHERE'
        elif block.language == 'json':
            json.loads(block.text)
        elif block.language == 'yaml':
            yaml.safe_load(block.text)
        elif block.language == 'toml':
            tomllib.loads(block.text)
        else:
            known = ('python', 'text', '{toctree}', '{eval-rst}')
            assert block.language in known, f'{block}: language {block.language!r}; known: {known}'
    for command in inline_commands(page):
        for words in commands(command):
            try:
                checker.check(words)
            except Exception as error:
                raise AssertionError(f'{name}: `{command}`: {error}') from error


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        ('python tools/trane.py CONFIG', 'tools/trane.py does not exist'),
        ('python tools/train.py CONFIG --fast', 'unrecognized arguments: --fast'),
        ('python tools/train.py configs/van/no.py', 'configs/van/no.py does not exist'),
        ('python tools/test.py CONFIG', 'required: checkpoint'),
        ('python tools/train.py configs/van/mask-rcnn_van-b0_fpn_1x_coco.py --cfg-options '
         'modle.backbone=1', 'did you mean model'),
        ('A=1 bash tools/dist_train.sh CONFIG', 'takes 2 arguments'),
        ('bash tools/slurm_train.sh PARTITION JOB CONFIG --nope', '--nope'),
        ("torchrun --nproc_per_node=2 tools/train.py CONFIG --seed x", 'invalid int value'),
        ('srun -N 2 --kill-on-bad-exit=1 python tools/none.py', 'does not exist'),
        ("pip install 'hybrid-mm[nothing]'", 'no extra'),
        ('python -m pytest tests/none.py', 'does not exist'),
        ('python -m hybrid_mm.nothing', 'there is no module'),
        ('conda install x', 'no check for the program'),
    ],
)  # fmt: skip
def test_mistakes_are_found(command, message):
    with pytest.raises(Exception, match=re.escape(message)):
        for words in commands(command):
            Checker().check(words)


@by_page
def test_no_code_is_indented(page):
    """Code is in fences: an indented block would not be checked."""
    lines = without_blocks(page).splitlines()
    for i, line in enumerate(lines):
        if re.match(r' {4}\S', line) and i and not lines[i - 1].strip():
            above = next(text for text in reversed(lines[:i]) if text and text[0] != ' ')
            in_list = re.match(r'([-*]|\d+\.) ', above)
            assert in_list, f'{page.name}:{i + 1}: put code between ``` lines'


# ---------------------------------------------------------------- commands


def _to_run() -> dict[str, tuple[str, str, list[str]]]:
    """Commands to run, equal ones once: page, script and arguments by id.

    Those of the trees' READMEs are the same for each of them, and checked only.
    """
    found = {}
    for block in ALL_BLOCKS:
        tree = block.page.startswith('configs/')
        if block.language != 'bash' or block.not_run or tree or block.page in TUTORIALS:
            continue
        for words in commands(block.text):
            if words[0] == 'python' and words[1] in RUN:
                script, args = words[1], words[2:]
                flags = [word for word in args if word.startswith('-') or '=' in word]
                positional = len([word for word in args if word not in flags])
                task = _task(args)
                found.setdefault(
                    f'{Path(script).stem} {task} {" ".join(flags)} {positional}',
                    (block.page, script, args),
                )
    return found


TUTORIALS = ('docs/add_a_backbone.md', 'docs/add_an_operator.md')  # test_tutorial.py


@functools.cache
def _task_of_file(path: Path) -> str:
    return task_of(load_config(str(path)))


def _task(args: list[str]) -> str:
    """Task of the config among the arguments of a tool."""
    for word in args:
        if word.endswith('.py') and (ROOT / word).exists():
            return _task_of_file(ROOT / word)
    return 'detection'


COMMANDS = _to_run()


@pytest.fixture(scope='session')
def weights(tmp_path_factory) -> dict[str, Path]:
    """Files by task, trained ones, and of the authors of VAN; filled on demand."""
    return dict(folder=tmp_path_factory.mktemp('weights'))


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_run(name, tool, weights, written, request, tmp_path, monkeypatch, tiny_coco):
    page, script, args = COMMANDS[name]
    task = _task(args)
    if task == 'pose':
        pytest.skip('needs MMPose; tests/configs/test_pose.py trains and tests such a config')
    assert task in ('detection', 'segmentation'), 'no small model of this task here'
    config = request.getfixturevalue('det_config' if task == 'detection' else 'seg_config')
    tool_name = script.removeprefix('tools/').removesuffix('.py')
    monkeypatch.chdir(tmp_path)

    if task not in weights:
        work_dir = weights['folder'] / task
        assert tool('train', config, '--work-dir', work_dir, '--no-validate')[0] == 0
        weights[task] = work_dir / 'iter_2.pth'
        state = torch.load(weights[task], weights_only=False)['state_dict']
        own = {k[9:]: v for k, v in state.items() if k.startswith('backbone.')}
        torch.save(own, work_dir / 'backbone.pth')
    trained = weights[task]
    with open(config, 'a') as file:  # so that init_cfg.checkpoint=FILE and =None mean something
        file.write(
            f"backbone['init_cfg'] = dict(type='Pretrained', "
            f"checkpoint='{trained.parent / 'backbone.pth'}')\n"
        )
    monkeypatch.setenv('COCO_ROOT', str(tiny_coco))

    def stand_in(word: str) -> str:
        key, equal, value = word.rpartition('=')
        if value in ('FILE', 'CHECKPOINT'):
            file = trained if tool_name != 'train' else trained.parent / 'backbone.pth'
            return f'{key}{equal}{_official(tmp_path) if "convert" in script else file}'
        if word == 'auto':  # tests/tools/test_published_weights.py
            return str(trained)
        if word in ('FOLDER', 'IMAGES'):
            return str(tiny_coco / 'val')
        if word == 'IMAGE':
            return str(tiny_coco / 'val/0.png')
        if word == 'CONFIG' or (word.endswith('.py') and tool_name not in REAL_CONFIGS):
            return str(config)
        if word.endswith('.py') and (ROOT / word).exists():
            return str(ROOT / word)
        if word.startswith('work_dirs/'):
            target = tmp_path / word
            if not target.exists():
                shutil.copytree(trained.parent, target)
            return word
        unknown = PLACEHOLDER.match(word) and word != 'DIR'
        assert not unknown, f'no stand-in for {word}'
        return word

    extra = [word for word in RUN[script] if word not in args]
    argv = [stand_in(word) for word in args]
    status, err = tool(tool_name, *argv, *(extra if len(extra) == len(RUN[script]) else []))
    assert status == 0, f'{page}: {script} {" ".join(argv)}: {err}'
    for flag in ('--out', '--show-dir', '--output-dir', '--save', '--json'):
        if flag in argv:
            place = argv[argv.index(flag) + 1]
            hits = [path for path in tmp_path.rglob('*') if path.name == Path(place).name]
            assert hits, f'{flag} {place}: nothing was written'


REAL_CONFIGS = ('print_config', 'complexity')


def _official(folder: Path) -> Path:
    """Weights of a VAN in the authors' layout."""
    from safetensors.torch import load_file

    tensors = load_file(ROOT / 'tests/golden/data/van/backbone_dense_a.safetensors')
    state = {k[7:]: v for k, v in tensors.items() if k.startswith('weight/')}
    torch.save(dict(state_dict=state), folder / 'official.pth.tar')
    (folder / 'checkpoints').mkdir(exist_ok=True)
    return folder / 'official.pth.tar'


# ---------------------------------------------------------------- Python


def _is_config(block) -> bool:
    return not re.search(r'^(import|from) ', block.text, re.MULTILINE)


@pytest.mark.parametrize(
    'block', [b for b in PYTHON if not _is_config(b) and b.page not in TUTORIALS], ids=str
)
def test_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if block.not_run:
        compile(block.text, str(block), 'exec')
        return
    torch.manual_seed(0)
    exec(compile(block.text, str(block), 'exec'), {'__name__': 'documented'})


@pytest.mark.parametrize(
    'block', [b for b in PYTHON if _is_config(b) and b.page not in TUTORIALS], ids=str
)
def test_parts_of_configs(block, written):
    """Types and their arguments exist; backbones are built; keys are those of a config."""
    if block.not_run:
        compile(block.text, str(block), 'exec')
        return
    if block.title:
        cfg = load_config(str(written(block.page) / block.title))
    else:
        # {{_base_.x}} refers to a value of another file
        cfg = Config.fromstring(re.sub(r'\{\{.*?\}\}', 'dict()', block.text), '.py')
        base = load_config(str(ROOT / 'configs/van/mask-rcnn_van-b0_fpn_1x_coco.py'))
        flexible = inspect.signature(FlexibleRunner.__init__).parameters
        options = {k: v for k, v in _flat(cfg.to_dict()).items() if k not in flexible}
        check_options(base, options)
    for path, node in nodes(cfg.to_dict(), ''):
        name = node.get('type')
        if isinstance(name, str) and name.startswith('hybrid_mm.'):
            _check_type(path, node, name)


def _flat(node: dict, prefix: str = '') -> dict:
    """Keys as ``--cfg-options`` has them; what replaces a dict as a whole is one of them."""
    result = {}
    for key, value in node.items():
        if isinstance(value, dict) and not {'type', '_delete_'} & set(value):
            result |= _flat(value, f'{prefix}{key}.')
        else:
            result[prefix + key] = value
    return result


def _check_type(path: str, node: dict, name: str) -> None:
    from mmengine.registry import DATASETS, HOOKS

    cls = next(filter(None, (registered_class(r, name) for r in (MODELS, DATASETS, HOOKS))), None)
    assert cls, f'{path}: there is no {name}'
    own = {k: v for k, v in node.items() if k not in ('type', '_delete_', 'init_cfg')}
    # what is imported when it is named has a function that tells no arguments
    strange = set(own) - set(arguments(cls)) if inspect.isclass(cls) else set()
    assert not strange, f'{path}: {name} has no arguments {sorted(strange)}'
    if path.endswith('backbone'):
        with torch.device('meta'):
            MODELS.build(dict(own, type=name))


# ---------------------------------------------------------------- pages that are followed


def test_own_data_of_getting_started(tool, written, tiny_coco, tmp_path, monkeypatch):
    """The config of the page trains, on data where it says, at a reduced size of the images."""
    config = written('docs/getting_started.md') / 'my_detector.py'
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    shutil.copytree(tiny_coco, 'data/mine')
    options = ['model.backbone.init_cfg=None', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    options += ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    options += ['train_dataloader.dataset.pipeline.2.scale=(64,64)']
    options += ['val_dataloader.dataset.pipeline.1.scale=(64,64)']
    status, err = tool('train', config, '--no-validate', '--cfg-options', *options)
    assert status == 0, err
    assert (tmp_path / 'work_dirs/my_detector/epoch_1.pth').exists()


def test_readme_links_lead_somewhere():
    """Links of the pages that the site does not have; Sphinx checks the others."""
    for page in ROOT.glob('*.md'):
        for link in re.findall(r'\]\((?![a-z]+:)([^)#]+)', page.read_text()):
            assert (ROOT / link).exists(), f'{page.name}: {link}'


# ---------------------------------------------------------------- pages of papers


def test_drawings_are_those_of_the_script():
    command = [sys.executable, ROOT / 'tools/dev/draw_papers.py', '--check']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_tree_has_its_page():
    """With a drawing, and in the overview."""
    overview = (ROOT / 'docs/papers/index.md').read_text()
    texts = {path.stem: path.read_text() for path in (ROOT / 'docs/papers').glob('*.md')}
    for metafile in (ROOT / 'configs').glob('*/metafile.yml'):
        tree = metafile.parent.name
        pages = [name for name, text in texts.items() if f'../../configs/{tree}/' in text]
        assert pages, f'no page in docs/papers links to configs/{tree}'
    for name in texts.keys() - {'index'}:
        assert f'({name}.md)' in overview
        assert f'(../images/papers/{name}.svg)' in texts[name]
        assert (ROOT / f'docs/images/papers/{name}.svg').exists()
