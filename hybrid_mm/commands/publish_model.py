"""What ``tools/publish_model.py`` does once its arguments are read."""

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from hybrid_mm.checkpoints import read_checkpoint, weights_of
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, replacing
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> None:
    """Write the file to publish, and print its name and sizes."""
    check_output_file(args.output, 'output')
    checkpoint = read_checkpoint(args.input)
    output = Path(args.output)
    output = output.with_suffix('') if output.suffix == '.pth' else output
    whole = output.with_name(f'.{output.name}-{os.getpid()}')
    with replacing(whole) as temporary:
        torch.save(publishable(checkpoint, args.input), temporary)
        torch.load(temporary, map_location='cpu', weights_only=True)  # what users will do
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()[:8]
    final = output.with_name(f'{output.name}-{digest}.pth')
    whole.replace(final)
    # not of an address
    before = os.path.getsize(args.input) if os.path.exists(args.input) else None
    input_size = f' (input: {before / 1e6:.1f} MB)' if before is not None else ''
    wrote(final, f'{final.stat().st_size / 1e6:.1f} MB{input_size}')


def publishable(checkpoint: dict[str, Any], path: str) -> dict[str, Any]:
    """Weights on the CPU, and some of the metadata as plain values.

    MMEngine's hook for averaged weights saves the averages in ``state_dict`` and the raw weights in
    ``ema_state_dict``, so that the former are always those to publish.
    """
    weights = weights_of(checkpoint, path)
    state = {key: value.detach().cpu().clone() for key, value in weights.items()}
    meta = checkpoint.get('meta') if isinstance(checkpoint.get('meta'), dict) else {}
    keep = ('dataset_meta', 'cfg', 'epoch', 'iter', 'mmengine_version', 'experiment_name')
    return dict(state_dict=state, meta={key: _plain(meta[key]) for key in keep if key in meta})


def _plain(value: Any) -> Any:
    """The value as dicts, lists, numbers and strings, which ``weights_only=True`` can read."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, 'tolist'):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
