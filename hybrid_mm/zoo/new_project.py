"""Write a repository for your own network: operator, network, configs, tests, benchmark."""

import builtins
import importlib.util
import keyword
import re
import shlex
import unicodedata
from pathlib import Path

from hybrid_mm.errors import UserError, printable
from hybrid_mm.run.outputs import replacing

TEMPLATES = Path(__file__).parent / 'templates' / 'project'
DETECTOR = 'retinanet_my-net-tiny_fpn_1x_coco'
SEGMENTER = 'my-net-tiny_fpn_8xb4-40k_ade20k-512x512'
PLACES = {
    'configs/det.py': f'configs/my_net/{DETECTOR}.py',
    'configs/seg.py': f'configs/my_net/{SEGMENTER}.py',
    'configs/metafile.yml': 'configs/my_net/metafile.yml',
}
"""Files whose place in a project is not that of their template."""
FOLDERS = {'configs', 'tests'}  # of the project, which a package of this name would share
SCOPES = {
    *('mmaction', 'mmagic', 'mmdeploy', 'mmdet', 'mmdet3d', 'mmengine', 'mmocr', 'mmpose'),
    *('mmpretrain', 'mmrazor', 'mmrotate', 'mmseg', 'mmselfsup', 'mmtrack', 'mmyolo'),
}
"""Scopes of OpenMMLab packages, installed or not."""


def new_project(folder: str | Path, name: str | None = None) -> list[Path]:
    """Write a project that holds an operator, a layer, a network, configs, tests and a benchmark.

    Args:
        folder: Folder to write to; it must not exist, or be empty but for ``.git``.
        name: Name of the package, which configs use as scope; by default that of the folder.

    Returns:
        Written files.

    Raises:
        UserError: The name cannot be that of a package or is taken, or the folder has files.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(p.name != '.git' for p in root.iterdir())):
        raise UserError(
            f'{printable(str(root))} exists and is not an empty folder; name a new one '
            '(nothing was written)'
        )
    name = package_name(root.resolve().name if name is None else name, given=name is not None)
    words = {'my_net': name, 'my-net': name.replace('_', '-'), 'MyNet': class_name(name)}

    def named(text: str) -> str:
        return re.sub('|'.join(words), lambda match: words[match[0]], text)

    written = []
    try:
        for template in sorted(TEMPLATES.rglob('*.txt')):
            place = template.relative_to(TEMPLATES).as_posix().removesuffix('.txt')
            target = root / named(PLACES.get(place, place))
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as path:
                Path(path).write_text(named(template.read_text('utf-8')), 'utf-8')
            written.append(target)
    except OSError as error:
        raise UserError(f'{printable(str(root))} cannot be written: {error.strerror}') from error
    return sorted(written)


def package_name(text: str, given: bool = True) -> str:
    """Name of a package from that of a folder, or as the user gave it.

    Raises:
        UserError: It is none, or one that another package has.
    """
    name = text if given else re.sub(r'[-. ]+', '_', text)
    if not _possible(name):
        raise UserError(
            f'{printable(text)!r} cannot be the name of a package: expected lower-case letters, '
            f'digits and _, a letter first; for example --name {_suggested(text)}'
        )
    if name in FOLDERS:
        raise UserError(
            f'the project has a folder {name}, so that its package needs another name; choose one '
            'with --name NAME'
        )
    if name in SCOPES or _is_installed(name):
        where = 'an OpenMMLab package' if name in SCOPES else 'a package that is installed here'
        raise UserError(
            f'{name!r} is the name of {where}, and its scope would hide yours; choose another one '
            'with --name NAME'
        )
    return name


def _possible(name: str) -> bool:
    return bool(re.fullmatch(r'[a-z][a-z0-9]*(_[a-z0-9]+)*', name)) and not keyword.iskeyword(name)


def _suggested(text: str) -> str:
    """A name like the one that is not possible."""
    plain = unicodedata.normalize('NFKD', text).encode('ascii', 'ignore').decode()
    snake = re.sub(r'([a-z0-9])(?=[A-Z])', r'\1_', plain).lower()
    name = re.sub(r'[^a-z0-9]+', '_', snake).strip('_0123456789')
    return next((n for n in (name, f'{name}_net') if _possible(n)), 'my_net')


def _is_installed(name: str) -> bool:
    """Whether there is such a module; any folder in the working directory looks like one."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return False
    if spec.origin is None and spec.submodule_search_locations is not None:
        here = Path.cwd().resolve()
        return any(Path(p).resolve().parent != here for p in spec.submodule_search_locations)
    return True


def class_name(name: str) -> str:
    """Name of the network's class, one that the modules of the project do not use otherwise."""
    name = ''.join(part[:1].upper() + part[1:] for part in name.split('_'))
    texts = (path.read_text('utf-8') for path in TEMPLATES.rglob('*.py.txt'))
    used = {word for text in texts for word in re.findall(r'\w+', text)} - {'MyNet'}
    return f'{name}Net' if name in used or hasattr(builtins, name) else name


def next_steps(folder: str | Path, files: list[Path]) -> str:
    """What is printed after a project was written."""
    root = printable(str(folder))
    lines = [f'wrote {len(files)} files to {root}:']
    lines += [f'  {printable(str(file.relative_to(folder)))}' for file in files]
    return '\n'.join(
        [*lines, f'next: cd {shlex.quote(root)} && python -m pytest, then see README.md']
    )
