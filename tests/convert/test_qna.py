"""Layout of QnA-ViT's Flax files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hybrid_mm.backbones import QnAViT
from hybrid_mm.checkpoints import read_checkpoint
from hybrid_mm.convert import convert, unwrap

DATA = Path(__file__).with_name('data')  # of tools/dev/golden/make_flax_qna.py

# the first two stages have both kinds of blocks, and other numbers of them
ARCH = dict(
    embed_dim=8,
    qna_depths=[1, 2, 0],
    qna_heads=[2, 2, 4],
    kernel_sizes=[3, 5, 3],
    window_depths=[1, 3, 2],
    window_sizes=[3, 4, 3],
    window_heads=[2, 4, 2],
)
NAMES = {
    'mlp.fc1': 'MlpBlock_0/Dense_0', 'mlp.fc2': 'MlpBlock_0/Dense_1', 'norm1': 'LayerNorm_0',
    'norm2': 'LayerNorm_1', 'gamma1': 'LayerScale_0/scale_param',
    'gamma2': 'LayerScale_1/scale_param', 'skip': 'Conv_0',
}  # fmt: skip
WINDOW = 'MultiHeadSelfAttention_0/'
QNA = {'query': 'query', 'k': 'Wk', 'v': 'to_v/kernel', 'proj': 'to_out/kernel',
       'relative_bias': 'rpe_bias', 'scale': 'attn_scale_weights'}  # fmt: skip


def make():
    return QnAViT(ARCH, layer_scale=0.1, out_indices=(0, 1, 2), norm_outputs='last')


def attention(name, layer, value):
    """Name and numbers of a tensor of one of the two kinds of attention."""
    part = name.split('.')[0]
    if hasattr(layer, 'query'):
        if part in ('relative_bias', 'scale'):  # rows and columns, then query and head
            value = value.flatten(0, 1).flatten(1).t()
            value = value if part == 'relative_bias' else value[None, None]
        return f'FusedKQnA_0/{QNA[part]}', value.t() if part in ('k', 'v', 'proj') else value
    if part == 'relative_bias':  # offsets of the query to the key there
        heads, side, _ = value.shape
        table = torch.empty(side**2, heads)
        for row in range(side):
            for column in range(side):
                table[row * side + column] = value[:, side - 1 - row, side - 1 - column]
        return f'{WINDOW}RelativePositionalEmbedding_0/rpe_bias', table
    if part == 'proj':
        return f'{WINDOW}to_out/kernel', value.t()
    width = len(value) // 3 // layer.heads
    rows = [  # of a head its queries, keys and values
        (part * layer.heads + head) * width + i
        for head in range(layer.heads)
        for part in range(3)
        for i in range(width)
    ]
    return f'{WINDOW}to_qkv/kernel', value[rows].t()


def official(model):
    """Weights under the official names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith('stages.0.embed'):
            state['params/StemBlock_0/conv_1x1/kernel'] = value.permute(2, 3, 1, 0)
            continue
        _, stage, part, *rest = key.split('.')
        stage = int(stage)
        if part == 'norm':
            leaf = dict(weight='scale', bias='bias')[rest[0]]
            state[f'params/ClassificationHead_0/LayerNorm_0/{leaf}'] = value
            continue
        windows = ARCH['window_depths']
        if part == 'downsample':
            number = ARCH['qna_depths'][stage - 1] + 1
            block = f'params/QnAStage_{stage - 1}/QnA_Block_{number}_stride_2'
            layer = model.stages[stage].downsample.attn
        else:
            index, *rest = rest
            layer = model.stages[stage].blocks[int(index)].attn
            if int(index) < windows[stage]:
                block = f'params/LSAStage_{stage}/MSA_Block_{int(index) + 1}'
            else:
                number = int(index) + 1 - windows[stage]
                block = f'params/QnAStage_{stage}/QnA_Block_{number}'
        if rest[0] == 'attn':
            name, value = attention('.'.join(rest[1:]), layer, value)
        else:
            name, leaf = '.'.join(rest[:-1]) or rest[0], rest[-1]
            name = NAMES[name]
            if name.startswith('Conv'):
                name, value = f'{name}/kernel', value.t()[None, None]
            elif name.startswith('Mlp'):
                name += '/kernel' if leaf == 'weight' else '/bias'
                value = value.t()
            elif name.startswith('LayerNorm'):
                name += '/scale' if leaf == 'weight' else '/bias'
        state[f'{block}/{name}'] = value
    return state


def test_round_trip(round_trip):
    _, state, _ = round_trip(make, official, 'qna', strange='QnAStage_0/QnA_Block_1/extra')
    assert 'params/LSAStage_1/MSA_Block_3/MultiHeadSelfAttention_0/to_qkv/kernel' in state
    assert state['params/QnAStage_1/QnA_Block_2/FusedKQnA_0/rpe_bias'].shape == (25, 4)


def test_head(drawn):
    head = {
        'ClassificationHead_0/head_logits/kernel': torch.rand(32, 5),
        'ClassificationHead_0/head_logits/bias': torch.rand(5),
    }
    out = convert(official(drawn(make())) | {f'params/{key}': v for key, v in head.items()})
    assert torch.equal(out['head.weight'], head['ClassificationHead_0/head_logits/kernel'].t())
    assert torch.equal(out['head.bias'], head['ClassificationHead_0/head_logits/bias'])


def test_attention_in_windows_gives_the_official_numbers(drawn):
    """One window, evaluated with the Flax tensors: index of query minus key, heads outermost."""
    model = drawn(make()).double()
    layer = model.stages[0].blocks[0].attn
    prefix = 'params/LSAStage_0/MSA_Block_1/MultiHeadSelfAttention_0/'
    state = official(model)
    x = torch.rand(1, 3, 3, 8, dtype=torch.float64)
    qkv = (x.flatten(0, 2) @ state[f'{prefix}to_qkv/kernel']).view(9, 2, 12)
    table = state[f'{prefix}RelativePositionalEmbedding_0/rpe_bias'].double()
    y, z = torch.arange(9) // 3, torch.arange(9) % 3
    index = (y[:, None] - y + 2) * 5 + z[:, None] - z + 2
    heads = []
    for head in range(2):
        q, k, v = qkv[:, head].split(4, 1)
        logits = q @ k.t() / 2 + table[index, head]
        heads.append(logits.softmax(-1) @ v)
    expected = torch.cat(heads, 1) @ state[f'{prefix}to_out/kernel']
    torch.testing.assert_close(layer(x), expected.view(1, 3, 3, 8))


def test_names_without_params_and_with_dots(drawn):
    state = official(drawn(make()))
    plain = convert(state)
    for change in (lambda key: key[len('params/') :], lambda key: key.replace('/', '.')):
        other = convert({change(key): value for key, value in state.items()})
        assert other.keys() == plain.keys()
        assert all(torch.equal(other[key], plain[key]) for key in plain)
    with pytest.raises(ValueError, match="do not know the key 'LSAStage_0/MSA_Block_1/bias2'"):
        convert(state | {'params/LSAStage_0/MSA_Block_1/bias2': torch.ones(1)})


def test_checkpoint_of_the_official_code():
    """The file that Flax wrote for the official network, and what that gives for an image."""
    path = DATA / 'qna_checkpoint_90'
    known = np.load(path.with_suffix('.npz'))
    arch = dict(
        embed_dim=8,
        qna_depths=[1, 2],
        qna_heads=[2, 4],
        kernel_sizes=[3, 5],
        window_depths=[1, 1],
        window_sizes=[4, 2],
        window_heads=[2, 4],
    )
    model = QnAViT(
        arch,
        layer_scale=0.1,
        out_indices=(1,),
        norm_outputs='last',
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    model.init_weights()
    head = convert(unwrap(read_checkpoint(str(path))))
    image = torch.from_numpy(known['image']).float().permute(0, 3, 1, 2)
    features = model.eval()(image)[0].mean((2, 3))
    logits = features @ head['head.weight'].t() + head['head.bias']
    torch.testing.assert_close(logits, torch.from_numpy(known['logits']), rtol=1e-3, atol=1e-4)
