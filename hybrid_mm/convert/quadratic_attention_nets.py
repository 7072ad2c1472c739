"""Layout of the attention-CNN code: BERT's encoder on image tokens.

The linear layer on 2 x 2 patches becomes a convolution; in its input the row of the patch is the
slowest and the colour the fastest index. The official "row" embeddings are those of the second
spatial axis, our columns. Buffers are dropped.
"""

import re

from torch import Tensor

from hybrid_mm.convert.core import Source, StateDict, register, rename

NAME = 'attention-cnn'
_BUFFERS = re.compile(r'attention_mask|.*\.self\.(?:R|relative_indices)')
_ATTENTION = {
    'attention_centers': 'centers',
    'attention_spreads': 'spreads',
    'row_embeddings.weight': 'table_w',
    'col_embeddings.weight': 'table_h',
    'head_keys_row.weight': 'head_w',
    'head_keys_col.weight': 'head_h',
    **{f'{n}.{leaf}': f'{n}.{leaf}' for n in ('query', 'key', 'value') for leaf in
       ('weight', 'bias')},
}  # fmt: skip
_LAYER = {
    'attention.output.dense': 'proj',
    'attention.output.LayerNorm': 'norm1',
    'intermediate.dense': 'fc1',
    'output.dense': 'fc2',
    'output.LayerNorm': 'norm2',
}
_LEAF = r'\.(?P<leaf>weight|bias)'
_BLOCK = r'encoder\.layer\.(?P<i>\d+)\.'
_RULES = [
    *((_BLOCK + r'attention\.self\.' + re.escape(old), rf'blocks.\g<i>.attn.{new}')
      for old, new in _ATTENTION.items()),
    *((_BLOCK + re.escape(old) + _LEAF, rf'blocks.\g<i>.{new}.\g<leaf>')
      for old, new in _LAYER.items()),
    (r'features_upscale' + _LEAF, r'embed.\g<leaf>'),
    (r'classifier' + _LEAF, r'head.\g<leaf>'),
]  # fmt: skip


def _patches(weight: Tensor) -> Tensor:
    """Reshape the weight of a linear layer (C, p * p * 3) to that of a convolution (C, 3, p, p)."""
    size = round((weight.shape[1] // 3) ** 0.5)
    if weight.shape[1] != 3 * size**2:
        raise ValueError(
            f'{NAME}: features_upscale.weight {tuple(weight.shape)} is not for square RGB patches'
        )
    return weight.unflatten(1, (size, size, 3)).permute(0, 3, 1, 2).contiguous()


def _convert(state: StateDict) -> StateDict:
    kept = {key: value for key, value in state.items() if not _BUFFERS.fullmatch(key)}
    out = rename(kept, _RULES, NAME)
    if 'embed.weight' in out:
        out['embed.weight'] = _patches(out['embed.weight'])
    return out


def _matches(keys: set[str]) -> bool:
    return 'encoder.layer.0.attention.self.value.weight' in keys and any(
        key in keys
        for key in (
            'encoder.layer.0.attention.self.attention_centers',
            'encoder.layer.0.attention.self.row_embeddings.weight',
        )
    )


register(NAME, Source('attention-cnn (BertImage)', _matches, _convert))
