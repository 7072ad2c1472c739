"""Let the official code of QnA-ViT write a checkpoint of Flax, with what its network gives.

python tools/dev/golden/make_flax_qna.py FOLDER_OF_THE_REPOSITORY

It needs jax, flax, optax and ml_collections. The repository is moabarar/qna; the two files of a
network of random weights go to tests/convert/data.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / 'tests' / 'convert' / 'data'
# the fields of models/qna_vit.py: two stages, both with blocks of both kinds
SETTINGS = dict(
    n_stages=2,
    base_dim=8,
    qna_heads=[2, 4],
    qna_layers=[1, 2],
    qna_receptive_field=[3, 5],
    qna_normalize_q=[True, True],
    lsa_layers=[1, 1],
    lsa_window=[4, 2],
    lsa_heads=[2, 4],
    layer_scale=0.1,
    drop_path_downsample=True,
)


def main(repository: str) -> None:
    """Write the files."""
    os.environ['JAX_PLATFORMS'] = 'cpu'
    sys.path.insert(0, repository)
    import flax
    import jax
    import optax
    from flax.training import checkpoints, train_state
    from models import qna_vit

    class State(train_state.TrainState):
        """The fields of train.py."""

        batch_stats: Any
        dynamic_scale: Any

    config = qna_vit.default_config()
    config.update(SETTINGS)
    model = qna_vit.QnAViT(num_classes=5, config=config)
    image = (
        np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float16).astype(np.float32)
    )
    params = model.init(jax.random.PRNGKey(0), image, train=False)['params']
    draw = np.random.default_rng(1)
    params = jax.tree_util.tree_map(
        lambda p: draw.uniform(-0.5, 0.5, p.shape).astype(np.float32), params
    )
    logits = model.apply({'params': params}, image, train=False)

    flax.config.update('flax_use_orbax_checkpointing', False)
    state = State.create(
        apply_fn=None, params=params, tx=optax.identity(), batch_stats=None, dynamic_scale=None
    )
    with tempfile.TemporaryDirectory() as folder:
        written = Path(checkpoints.save_checkpoint(folder, state, 90)).read_bytes()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / 'qna_checkpoint_90').write_bytes(written)
    np.savez_compressed(
        FOLDER / 'qna_checkpoint_90.npz', image=image.astype(np.float16), logits=logits
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
