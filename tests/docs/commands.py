"""Checks of commands without running them: programs, files, flags, keys of configs.

A tool is started with its arguments up to where ``argparse`` has accepted them.
"""

import argparse
import contextlib
import functools
import importlib.util
import io
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import tomllib
from packaging.requirements import Requirement

from hybrid_mm.run.checks.overrides import check_options
from hybrid_mm.run.config import load_config

from .blocks import PLACEHOLDER, ROOT, commands

LAUNCHERS = {
    # script: the tool that it starts, and its own arguments before and after the config
    'tools/dist_train.sh': ('tools/train.py', 0, 1),
    'tools/dist_test.sh': ('tools/test.py', 0, 2),
    'tools/slurm_train.sh': ('tools/train.py', 2, 0),
    'tools/slurm_test.sh': ('tools/test.py', 2, 0),
}
SHELL = {'cd', 'cp', 'git', 'mkdir', 'ls', 'pre-commit', 'ruff'}
"""Programs that are not ours and whose arguments are left unchecked."""


class _Parsed(BaseException):
    """Ends a tool when its arguments are read."""

    def __init__(self, namespace: argparse.Namespace):
        self.namespace = namespace


@contextlib.contextmanager
def _stop_after_parsing():
    depth = 0

    def wrap(method):
        @functools.wraps(method)
        def parse(self, *args, **kwargs):
            nonlocal depth
            depth += 1
            try:
                result = method(self, *args, **kwargs)
            finally:
                depth -= 1
            if depth == 0:
                raise _Parsed(result[0] if isinstance(result, tuple) else result)
            return result

        return parse

    cls = argparse.ArgumentParser
    with (
        mock.patch.object(cls, 'parse_args', wrap(cls.parse_args)),
        mock.patch.object(cls, 'parse_known_args', wrap(cls.parse_known_args)),
    ):
        yield


def parsed(start, argv: list[str]) -> argparse.Namespace:
    """What the parser of a program makes of its arguments.

    Args:
        start: Called without arguments, with ``sys.argv`` set.
        argv: The arguments, after the name of the program.
    """
    errors = io.StringIO()
    try:
        with (
            _stop_after_parsing(),
            mock.patch.object(sys, 'argv', ['program', *argv]),
            contextlib.redirect_stderr(errors),
        ):
            start()
    except _Parsed as result:
        return result.namespace
    except SystemExit:
        raise AssertionError(f'{" ".join(argv)}: {errors.getvalue().strip()}') from None
    raise AssertionError(f'{" ".join(argv)}: the program does not read its arguments')


@functools.cache
def _main(script: str):
    path = ROOT / script
    spec = importlib.util.spec_from_file_location(f'documented_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module.main


@functools.cache
def _config(path: str):
    return load_config(path)


class Checker:
    """Checks the commands of one page.

    Args:
        folder: Where the files that the page has its readers write are; looked at before the
            project.
    """

    def __init__(self, folder: Path = ROOT):
        self.folder = folder

    def file(self, name: str) -> Path:
        """A file or folder that a command names."""
        for root in (self.folder, ROOT):
            if (root / name).exists():
                return root / name
        raise AssertionError(f'{name} does not exist')

    def check(self, words: list[str]) -> list[tuple[str, list[str]]]:
        """Check a command; the Python scripts of ours that it starts, with their arguments.

        Raises:
            AssertionError: Something in it does not exist, or nobody knows how to check it.
        """
        while words and re.match(r'[A-Za-z_]\w*=', words[0]):
            words = words[1:]
        # what `python -m hybrid_mm tools` prints
        words = [word.replace('$TOOLS/', 'tools/') for word in words]
        if not words:
            return []
        program, *args = words
        check = getattr(self, f'check_{program}', None)
        if check is None:
            assert program in SHELL, (
                f'no check for the program {program!r} of {" ".join(words)}: add one to '
                'tests/docs/commands.py'
            )
            return []
        return check(args)

    def check_export(self, args: list[str]) -> list:
        """``export A=B ...``."""
        assert all(re.match(r'[A-Za-z_]\w*=', word) for word in args), args
        return []

    def check_python(self, args: list[str]) -> list:
        """A script of ours, or ``-m`` with pytest, a module of ours, or a tool."""
        if args[:1] == ['-m']:
            return self._module(args[1], args[2:])
        if args[:1] == ['-c']:
            compile(args[1], '<documented>', 'exec')
            return []
        return self._script(args[0], args[1:])

    def _module(self, name: str, args: list[str]) -> list:
        assert importlib.util.find_spec(name), f'there is no module {name}'
        if name == 'pytest':
            values = {'-k', '-n', '-m'}
            for previous, word in zip(['', *args], args, strict=False):
                if not word.startswith('-') and previous not in values:
                    self.file(word.split('::')[0])
        elif name.split('.')[0] == 'hybrid_mm':
            parsed(lambda: runpy.run_module(name, run_name='__main__', alter_sys=True), args)
            return [(f'-m {name}', args)]
        return []

    def _script(self, script: str, args: list[str]) -> list:
        self.file(script)
        namespace = parsed(_main(script), args)
        self._check_config(namespace)
        return [(script, args)]

    def _check_config(self, namespace: argparse.Namespace) -> None:
        """The config exists, and has the keys of ``--cfg-options``."""
        path = getattr(namespace, 'config', None)
        if path is None or PLACEHOLDER.match(path) or path.endswith('.onnx'):
            return
        cfg = _config(path if '::' in path else str(self.file(path)))
        if getattr(namespace, 'cfg_options', None):
            check_options(cfg, namespace.cfg_options)

    def check_bash(self, args: list[str]) -> list:
        """A shell script of ours, or ``-c``."""
        if args[0] == '-c':
            text = re.sub(r'\$\([^)]*\)', 'VALUE', args[1])  # $(...)
            return [found for command in commands(text) for found in self.check(command)]
        script, *rest = args
        path = self.file(script)
        subprocess.run(['bash', '-n', str(path)], check=True)
        if script in LAUNCHERS:
            tool, front, number = LAUNCHERS[script]
            usage = f'{script} takes {front + number + 1} arguments, got {rest}'
            assert len(rest) > front + number, usage
            inner = rest[front:]
            if number:  # the number of processes is the last of the positional arguments
                processes = inner.pop(number)
                assert processes.isdigit() or PLACEHOLDER.match(processes), usage
            self._script(tool, inner)
        elif script == 'tools/demo.sh':
            return self._script('tools/demo.py', rest)[:0]
        return []

    def check_torchrun(self, args: list[str]) -> list:
        """Options of torchrun, then a script."""
        from torch.distributed.run import get_args_parser

        options = get_args_parser().parse_args(args)
        self._script(options.training_script, options.training_script_args)
        return []

    def check_srun(self, args: list[str]) -> list:
        """Options of Slurm, then a command."""
        while args and (args[0].startswith('-') or args[0].isdigit()):
            args = args[1:]
        self.check(args)
        return []

    def check_mim(self, args: list[str]) -> list:
        """``search`` for a config of ours, or ``train`` with one, or a script of theirs."""
        command, package, *rest = args
        if package in ('mmdet', 'mmseg', 'mmpretrain'):
            assert command in ('train', 'test'), args
            return []
        assert package == 'hybrid_mm', package
        if command == 'search':
            assert rest[0] == '--config', rest
            assert list((ROOT / 'configs').glob(f'*/{rest[1]}.py')), f'no config {rest[1]}'
        else:
            assert command == 'train' and rest[0].endswith('.py'), args
        return []

    def check_docker(self, args: list[str]) -> list:
        """``build`` with a file of ours; what ``run`` starts are our tools in the image."""
        assert args[0] in ('build', 'run'), args
        if args[0] == 'build':
            self.file(args[args.index('-f') + 1])
        for word in args:
            if word.startswith('/opt/hybrid_mm/'):
                self.file(word.removeprefix('/opt/hybrid_mm/'))
        return []

    def check_pip(self, args: list[str]) -> list:
        """``install`` of requirements; extras of this project exist."""
        if args[0] in ('cache', 'uninstall'):
            return []
        assert args[0] in ('install', 'wheel'), args
        with open(ROOT / 'pyproject.toml', 'rb') as file:
            ours = set(tomllib.load(file)['project']['optional-dependencies'])
        for word in args[1:]:
            if word.startswith('-'):
                continue
            if word.startswith('.'):
                word = 'hybrid-mm' + word[1:]
            requirement = Requirement(word)
            if requirement.name == 'hybrid-mm':
                assert requirement.extras <= ours, f'no extra {requirement.extras - ours}'
        return []
