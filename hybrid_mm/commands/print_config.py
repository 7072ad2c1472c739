"""What ``tools/print_config.py`` does once its arguments are read."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run.config import load_config, nodes
from hybrid_mm.run.outputs import check_output_file, replacing


def run(args: argparse.Namespace) -> None:
    """Print the resolved config or parts of it, or write them to a file."""
    if args.save:
        suffixes = ('.py', '.json', '.yml', '.yaml')
        check_output_file(args.save, '--save', suffixes, inputs=[args.config])
    cfg = load_config(args.config, args.cfg_options)
    if args.key:
        cfg = parts(cfg, args.key)
    if args.save:
        with replacing(args.save) as path:
            cfg.dump(path)
    else:
        print(cfg.pretty_text)


def parts(cfg: Config, keys: Sequence[str]) -> Config:
    """Config of some parts of another, each called as the last of its names.

    Those with the same last name, such as ``train_dataloader.batch_size`` and
    ``val_dataloader.batch_size``, are called by their whole keys with ``_`` between the names.

    Raises:
        UserError: There is no such part.
    """
    keys = list(dict.fromkeys(keys))
    last = [key.split('.')[-1] for key in keys]
    names = [
        key.replace('.', '_') if last.count(name) > 1 else name
        for key, name in zip(keys, last, strict=True)
    ]
    return Config({name: _part(cfg, key) for key, name in zip(keys, names, strict=True)})


def _part(cfg: Config, key: str) -> object:
    """Value of a key.

    Raises:
        UserError: There is no such key; names the part of it that is wrong, and what is like it.
    """
    node, place = cfg._cfg_dict, ''
    for part in key.split('.'):
        if isinstance(node, dict):
            names = [str(name) for name in node]
        elif isinstance(node, (list, tuple)):
            names = [str(i) for i in range(len(node))]
        else:
            raise UserError(f'--key {key}: {place} is {node!r} and has no parts')
        if part not in names:
            hint = _elsewhere(cfg, key) or nearest(part, names) or f'; there are {_few(names)}'
            raise UserError(f'--key {key}: no {part!r}{f" in {place}" if place else ""}{hint}')
        node = node[part] if isinstance(node, dict) else node[int(part)]
        place = f'{place}.{part}' if place else part
    return node


def _few(names: Sequence[str]) -> str:
    return 'none' if not names else ', '.join(names[:12]) + (', ...' if len(names) > 12 else '')


def _elsewhere(cfg: Config, key: str) -> str:
    """Hint at parts whose keys end in what was asked for, the shortest first; or empty."""
    found = [
        f'{path}.{name}'.lstrip('.')
        for path, node in nodes(cfg._cfg_dict, '')
        for name in node
        if f'{path}.{name}'.endswith(f'.{key}')
    ]
    found = sorted(found, key=lambda path: (path.count('.'), len(path)))
    return f'; did you mean {", ".join(found[:3])}?' if found else ''
