"""Layout of QnA-ViT: Flax parameters with paths joined by slashes or dots."""

import re

from torch import Tensor

from hybrid_mm.convert.core import Source, StateDict, place_reductions, register

_PLACES = [
    (r'StemBlock_0/conv_1x1', 'stages.0.embed.conv'),
    (r'LSAStage_(\d+)/MSA_Block_(\d+)', 'window'),
    (r'QnAStage_(\d+)/QnA_Block_\d+_stride_2', 'halving'),
    (r'QnAStage_(\d+)/QnA_Block_(\d+)', 'qna'),
    (r'ClassificationHead_0/LayerNorm_0', 'last.norm'),
    (r'ClassificationHead_0/head_logits', 'head'),
]
_PARTS = {
    'LayerNorm_0': 'norm1',
    'LayerNorm_1': 'norm2',
    'MlpBlock_0/Dense_0': 'mlp.fc1',
    'MlpBlock_0/Dense_1': 'mlp.fc2',
    'Conv_0': 'skip',
    'MultiHeadSelfAttention_0/to_qkv': 'attn.qkv',
    'MultiHeadSelfAttention_0/to_out': 'attn.proj',
    'FusedKQnA_0/to_v': 'attn.v',
    'FusedKQnA_0/to_out': 'attn.proj',
}
_TENSORS = {
    'FusedKQnA_0/query': 'attn.query',
    'FusedKQnA_0/Wk': 'attn.k.weight',
    'FusedKQnA_0/rpe_bias': 'attn.relative_bias',
    'FusedKQnA_0/attn_scale_weights': 'attn.scale',
    'MultiHeadSelfAttention_0/RelativePositionalEmbedding_0/rpe_bias': 'attn.relative_bias',
    'LayerScale_0/scale_param': 'gamma1',
    'LayerScale_1/scale_param': 'gamma2',
}
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}


def _tree(key: str) -> str:
    return re.sub(r'^params/', '', key.replace('.', '/'))


def _matches(keys: set[str]) -> bool:
    return any(re.fullmatch(r'QnAStage_0/QnA_Block_1/FusedKQnA_0/Wk', _tree(key)) for key in keys)


def _place(key: str, windows: dict[str, int]) -> tuple[str, str] | None:
    """Our name of the block or layer, and the remaining part of the official name."""
    for pattern, place in _PLACES:
        match = re.match(pattern + r'(?:/|$)', key)
        if match is None:
            continue
        rest = key[match.end() :]
        if place == 'halving':
            place = f'stages.{int(match[1]) + 1}.downsample'
        elif place in ('window', 'qna'):
            before = windows.get(match[1], 0) if place == 'qna' else 0
            place = f'stages.{match[1]}.blocks.{before + int(match[2]) - 1}'
        return place, rest
    return None


def _name(key: str, windows: dict[str, int]) -> str:
    found = _place(key, windows)
    if found is not None:
        place, rest = found
        if rest in _TENSORS:
            return f'{place}.{_TENSORS[rest]}'
        part, _, leaf = rest.rpartition('/')
        if leaf in _LEAVES and part in _PARTS:
            return f'{place}.{_PARTS[part]}.{_LEAVES[leaf]}'
        if leaf in _LEAVES and not part:
            return f'{place}.{_LEAVES[leaf]}'
    raise ValueError(f'qna: do not know the key {key!r}')


def _convert(state: StateDict) -> StateDict:
    state = {_tree(key): value for key, value in state.items()}
    windows: dict[str, int] = {}
    for key in state:
        if match := re.match(r'LSAStage_(\d+)/MSA_Block_(\d+)/', key):
            windows[match[1]] = max(windows.get(match[1], 0), int(match[2]))
    out = {_name(key, windows): value for key, value in state.items()}
    out = place_reductions(out)
    return {key: _tensor(key, value, out) for key, value in out.items()}


def _tensor(key: str, value: Tensor, state: StateDict) -> Tensor:
    """Convert a Flax parameter to the order of dimensions of torch."""
    block = key.rpartition('.attn.')[0]
    if key.endswith('.attn.relative_bias') and f'{block}.attn.qkv.weight' in state:
        size = round(value.shape[0] ** 0.5)
        # official offsets are query minus key
        return value.t().reshape(-1, size, size).flip(1, 2).contiguous()
    if key.endswith(('.attn.relative_bias', '.attn.scale')):
        queries = state[f'{block}.attn.query'].shape[0]
        value = value.flatten(0, -2)
        size = round(value.shape[0] ** 0.5)
        return value.t().reshape(queries, -1, size, size).contiguous()
    if key.endswith('.attn.qkv.weight'):
        heads = state[f'{block}.attn.relative_bias'].shape[-1]
        channels = value.shape[0]
        # official rows have queries, keys and values of each head together
        value = value.t().reshape(heads, 3, -1, channels)
        return value.transpose(0, 1).reshape(-1, channels).contiguous()
    if key.endswith('conv.weight'):
        return value.permute(3, 2, 0, 1).contiguous()
    if key.endswith('skip.weight'):
        return value[0, 0].t().contiguous()
    if key.endswith('.weight') and value.ndim == 2:
        return value.t().contiguous()
    return value


register('qna', Source('QnA-ViT (moabarar/qna, Flax)', _matches, _convert))
