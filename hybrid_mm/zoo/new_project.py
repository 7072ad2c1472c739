"""Write a repository for your own network: operator, network, configs, tests, benchmark."""

import importlib.util
import keyword
import re
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


def new_project(folder: str | Path, name: str | None = None) -> list[Path]:
    """Write a project that holds an operator, a layer, a network, configs, tests and a benchmark.

    Args:
        folder: Folder to write to; it must be empty, or not exist.
        name: Name of the package, which configs use as scope; by default that of the folder.

    Returns:
        Written files.

    Raises:
        UserError: The name cannot be that of a package or is taken, or the folder has files.
    """
    root = Path(folder)
    name = package_name(root.resolve().name if name is None else name, given=name is not None)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f'{printable(str(root))} exists and is not an empty folder; name a new one '
            '(nothing was written)'
        )
    words = {
        'my_net': name,
        'my-net': name.replace('_', '-'),
        'MyNet': ''.join(part[:1].upper() + part[1:] for part in name.split('_')),
    }

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
    hint = 'lower-case letters, digits and _, a letter first; --name NAME sets it'
    if not re.fullmatch(r'[a-z][a-z0-9]*(_[a-z0-9]+)*', name) or keyword.iskeyword(name):
        raise UserError(f'{printable(text)!r} cannot be the name of a package: expected {hint}')
    if importlib.util.find_spec(name) is not None:
        raise UserError(
            f'{name!r} is the name of a package that is installed here, and its scope would hide '
            f'yours; choose another one with --name NAME'
        )
    return name


def next_steps(folder: str | Path, files: list[Path]) -> str:
    """What is printed after a project was written."""
    root = printable(str(folder))
    lines = [f'wrote {len(files)} files to {root}:']
    lines += [f'  {printable(str(file.relative_to(folder)))}' for file in files]
    return '\n'.join([*lines, f'next: cd {root} && python -m pytest, then see README.md'])
