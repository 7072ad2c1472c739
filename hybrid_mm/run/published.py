"""``auto`` in place of a checkpoint: the published weights of a config."""

import difflib
from pathlib import Path

from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run.config import load_config, nodes
from hybrid_mm.weights import SCHEME, Weights, all_weights

AUTO = 'auto'


def checkpoint_of(config: str | Path | Config, checkpoint: str | Path) -> str:
    """Resolve ``auto``; every other checkpoint is returned as it is.

    Args:
        config: Config file, or a config that was read from a file.
        checkpoint: File, address, ``hybrid_mm://NAME`` or 'auto'.

    Raises:
        UserError: 'auto', and nobody published weights of this config; says what there is instead.
    """
    if str(checkpoint) != AUTO:
        return str(checkpoint)
    file = config.filename if isinstance(config, Config) else str(config)
    if file is None or not (file.endswith('.py') or '::' in file):
        raise UserError(
            f'{AUTO} finds the published weights of a config by its file name; there is none here. '
            f'Name them: {SCHEME}NAME'
        )
    found = published_weights(Path(file).stem)
    if found is None:
        raise UserError(_nothing(config, Path(file)))
    return f'{SCHEME}{found.name}'


def published_weights(config: str) -> Weights | None:
    """Registered weights of a config as a whole, published or not.

    Args:
        config: Name of a config. Those of a detector or segmenter are called like it, those of a
            classifier name it as the config that trains them.
    """
    known = all_weights()
    trained = (weights for weights in known.values() if weights.trained_by == config)
    return known.get(config) or next(trained, None)


def needed_weights(cfg: Config) -> list[str]:
    """What a training with a config loads: files and addresses, each once."""
    found = [
        str(node['checkpoint'])
        for part in ('model', 'custom_hooks')
        for _, node in nodes(cfg.get(part), part)
        if node.get('type') == 'Pretrained' and node.get('checkpoint')
    ]
    return list(dict.fromkeys([*found, *([cfg.load_from] if cfg.get('load_from') else [])]))


def _nothing(config: str | Path | Config, file: Path) -> str:
    """Why ``auto`` finds no weights of a config, and what there is."""
    cfg = config if isinstance(config, Config) else load_config(str(config))
    parts = needed_weights(cfg)
    backbone = f'; those of a part, which it is trained from: {", ".join(parts)}' if parts else ''
    whole = [w for w in all_weights().values() if w.files and not w.of_backbone]
    names = [w.name for w in whole if w.tree == file.parent.name] or [w.name for w in whole]
    near = difflib.get_close_matches(file.stem, names, n=3, cutoff=0.4)
    others = f'; published are, for example, {", ".join(near)}' if near else ''
    return (
        f'{AUTO}: no published weights of {file.stem} as a whole are known{backbone}. Train it '
        f'with tools/train.py and name the checkpoint{others}'
    )
