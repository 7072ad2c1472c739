"""What ``tools/print_config.py`` does once its arguments are read."""

import argparse

from mmengine.config import Config

from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run.config import load_config
from hybrid_mm.run.outputs import check_output_file, replacing


def run(args: argparse.Namespace) -> None:
    """Print the resolved config or a part of it, or write it to a file."""
    if args.save:
        suffixes = ('.py', '.json', '.yml', '.yaml')
        check_output_file(args.save, '--save', suffixes, inputs=[args.config])
    cfg = load_config(args.config, args.cfg_options)
    if args.key:
        cfg = _part(cfg, args.key)
    if args.save:
        with replacing(args.save) as path:
            cfg.dump(path)
    else:
        print(cfg.pretty_text)


def _part(cfg, key: str):
    """Config with one key only, nested as in the original."""
    node = cfg._cfg_dict
    for part in key.split('.'):
        names = node if isinstance(node, dict) else [str(i) for i in range(len(node))]
        if part not in names:
            raise UserError(f'--key {key}: no {part!r}{nearest(part, names)}')
        node = node[part] if isinstance(node, dict) else node[int(part)]
    return Config({key.split('.')[-1]: node})
