"""ViT, ViTDet and the simple feature pyramid beyond the contract."""

import re

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import ViT
from hybrid_mm.convert import convert, detect
from hybrid_mm.layers.attention.self_attention import SelfAttention
from hybrid_mm.openmmlab.simple_fpn import SimpleFPN
from hybrid_mm.registry import MODELS

ARCH = dict(embed_dim=16, heads=2, depths=[1, 2, 1])
VITDET = dict(window_size=14, relative=True, class_token=False, img_size=1024, out_indices=(3,))
SMALL = dict(pretrain_img_size=64, img_size=64, out_indices=(2,))
DENSE = dict(SMALL, window_size=3, relative=True, class_token=False)


def number(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    'arch, size, patch, count',
    [
        ('tiny', 224, 16, 5_717_416), ('small', 224, 16, 22_050_664), ('base', 224, 16, 86_567_656),
        ('base', 224, 32, 88_224_232), ('large', 224, 16, 304_326_632),
        ('huge', 224, 14, 632_045_800),
    ],
)  # fmt: skip
def test_parameters(arch, size, patch, count):
    with torch.device('meta'):
        model = ViT(arch, patch, size, size, final_norm=True, pooled=True, out_indices=(3,))
        assert number(model, nn.Linear(model.out_channels[0], 1000)) == count


@pytest.mark.parametrize(
    'arch, net, total',
    [
        ('base', 85_889_024, 91_449_024), ('large', 303_432_704, 311_237_888),
        ('huge', 631_116_800, 641_756_992),
    ],
)  # fmt: skip
def test_parameters_of_vitdet(arch, net, total):
    with torch.device('meta'):
        model = ViT(arch, **VITDET)
        assert number(model) == net
        assert number(model, SimpleFPN(model.out_channels)) == total


def test_global_blocks_are_the_last_of_each_subset():
    with torch.device('meta'):
        for arch, blocks in (('base', (2, 5, 8, 11)), ('huge', (7, 15, 23, 31))):
            attns = [m for m in ViT(arch, **VITDET).modules() if isinstance(m, SelfAttention)]
            found = tuple(i for i, attn in enumerate(attns) if attn.window is None)
            assert found == blocks
            assert {len(attns[i].relative.rel_h) for i in found} == {127}
        model = ViT(ARCH, **DENSE, global_blocks=(0,))
    windows = [b.attn.window for stage in model.stages for b in stage.blocks]
    assert windows == [None, 3, 3, 3]


def test_padded_tokens_take_part_with_the_bias_of_the_projection():
    """The published formulation step by step, for a map that windows do not divide."""
    torch.manual_seed(0)
    layer = SelfAttention(8, 2, (9, 9), window=3).double()
    for table in (layer.relative.rel_h, layer.relative.rel_w):
        nn.init.normal_(table)
    x = torch.randn(1, 4, 5, 8, dtype=torch.float64)
    full = nn.functional.pad(x, (0, 0, 0, 1, 0, 2))
    expected = torch.zeros_like(full)
    offset = torch.arange(3)[:, None] - torch.arange(3) + 2
    for top in (0, 3):
        for left in (0, 3):
            cell = slice(None), slice(top, top + 3), slice(left, left + 3)
            q, k, v = layer.qkv(full[cell]).view(3, 3, 3, 2, 4).permute(2, 3, 0, 1, 4)
            logits = torch.einsum('hyxd,hvud->hyxvu', q * 4**-0.5, k)
            logits = (
                logits + torch.einsum('hyxd,yvd->hyxv', q, layer.relative.rel_h[offset])[..., None]
            )
            logits = (
                logits
                + torch.einsum('hyxd,xud->hyxu', q, layer.relative.rel_w[offset])[..., None, :]
            )
            weights = logits.flatten(3).softmax(-1).unflatten(-1, (3, 3))
            out = torch.einsum('hyxvu,hvud->yxhd', weights, v).flatten(2)
            expected[cell] = layer.proj(out)
    found = layer(x.flatten(1, 2), (4, 5)).unflatten(1, (4, 5))
    torch.testing.assert_close(found, expected[:, :4, :5])


def test_zero_positions_and_convolutions_change_nothing():
    torch.manual_seed(0)
    plain = ViT(ARCH, **dict(SMALL, class_token=False)).eval()
    dense = ViT(ARCH, **dict(SMALL, class_token=False), relative=True, residual_blocks=(0, 3))
    dense.load_strictly(plain.state_dict(), 'plain')
    x = torch.rand(1, 3, 80, 64)
    torch.testing.assert_close(dense.eval()(x)[0], plain(x)[0])


def test_biases_written_out():
    """BEiT's: of pairs of the map, of the class token to them, of them to it, of it to itself."""
    torch.manual_seed(0)
    layer = SelfAttention(8, 2, (2, 3), relative='token_bias').double()
    nn.init.normal_(layer.relative.table)
    nn.init.normal_(layer.relative.tokens)
    x = torch.randn(2, 7, 8, dtype=torch.float64, requires_grad=True)
    places = [None, *((y, x) for y in range(2) for x in range(3))]
    bias = torch.empty(2, 7, 7, dtype=torch.float64)
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            if query and key:
                offset = key[0] - query[0] + 1, key[1] - query[1] + 2
                bias[:, i, j] = layer.relative.table[:, offset[0], offset[1]]
            else:
                kind = 2 if query is key else 0 if query is None else 1
                bias[:, i, j] = layer.relative.tokens[:, kind]
    q, k, v = layer.qkv(x).view(2, 7, 3, 2, 4).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT * 4**-0.5 + bias).softmax(-1)
    expected = layer.proj((weights @ v).transpose(1, 2).flatten(2))
    found = layer(x, (2, 3))
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert layer.relative.table.grad.all() and layer.relative.tokens.grad.all()
    with pytest.raises(ValueError, match="relative='token_bias' excludes window"):
        SelfAttention(8, 2, (2, 3), 2, relative='token_bias')


@pytest.mark.parametrize('class_token', [True, False])
def test_zero_biases_change_nothing_and_fit_other_maps(class_token):
    torch.manual_seed(0)
    kwargs = dict(SMALL, class_token=class_token)
    plain = ViT(ARCH, **kwargs).eval()
    biased = ViT(ARCH, **kwargs, relative='bias').eval()
    biased.load_strictly(plain.state_dict(), 'plain')
    x = torch.rand(1, 3, 80, 64)
    torch.testing.assert_close(biased(x)[0], plain(x)[0])
    for name, parameter in biased.named_parameters():
        if '.relative.' in name:
            nn.init.normal_(parameter)
    # a table that was resized at loading gives what one gives that is resized for the map
    other = ViT(ARCH, **dict(kwargs, img_size=(80, 64)), relative='bias').eval()
    other.load_strictly(biased.state_dict(), 'the file')
    assert other.stages[0].blocks[0].attn.relative.table.shape == (2, 9, 7)
    torch.testing.assert_close(other(x)[0], biased(x)[0])
    assert not torch.allclose(biased(x)[0], plain(x)[0])
    # windows have tables of their own, and no numbers for a class token
    windows = ViT(ARCH, **dict(DENSE, relative='bias')).eval()
    windows.load_strictly(biased.state_dict(), 'the file')
    tables = [block.attn.relative for stage in windows.stages for block in stage.blocks]
    assert {tuple(table.table.shape) for table in tables} == {(2, 5, 5), (2, 7, 7)}
    assert windows(x)[0].shape == (1, 16, 5, 4)


def official(key, layout):
    """Name of a tensor in a layout, written out independently."""
    stage = re.match(r'stages\.(\d)\.blocks\.(\d)\.', key)
    if stage:
        index = [0, 1, 3][int(stage[1])] + int(stage[2])
        key = f'{"layers" if layout == "mmpretrain" else "blocks"}.{index}.{key[stage.end() :]}'
    key = key.replace('stages.2.norm.', 'ln1.' if layout == 'mmpretrain' else 'norm.')
    key = key.replace('stem.class_token', 'cls_token').replace('stem.position', 'pos_embed')
    key = key.replace('relative.rel_', 'rel_pos_')
    if layout == 'mmpretrain':
        key = key.replace('gamma1', 'attn.gamma1.weight').replace('gamma2', 'ffn.gamma2.weight')
        key = key.replace('stem.proj', 'patch_embed.projection').replace('mlp.fc2', 'ffn.layers.1')
        return key.replace('mlp.fc1', 'ffn.layers.0.0').replace('.norm', '.ln')
    key = key.replace('stem.proj', 'patch_embed.proj')
    key = key.replace('gamma1', 'ls1.gamma').replace('gamma2', 'ls2.gamma')
    return f'backbone.net.{key}' if layout == 'detectron2' else key


@pytest.mark.parametrize('layout', ['timm', 'mmpretrain', 'detectron2'])
def test_layouts(layout):
    dense = layout == 'detectron2'
    plain = dict(SMALL, final_norm=True, layer_scale=0.5)
    kwargs = dict(DENSE, residual_blocks=(1,)) if dense else plain
    source, target = ViT(ARCH, **kwargs), ViT(ARCH, **kwargs)
    state = {official(key, layout): value for key, value in source.state_dict().items()}
    assert detect(state) == ('vitdet-detectron2' if dense else 'vit')
    out = convert(state)
    if dense:
        out = {key.removeprefix('backbone.'): value for key, value in out.items()}
    target.load_state_dict(out)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key
    # however the blocks are divided
    other = ViT(
        dict(ARCH, depths=[2, 2]), **dict(kwargs, out_indices=(1,), global_blocks=(0, 2, 3))
    )
    other.load_state_dict(out)
    strange = 'backbone.net.blocks.0.gamma' if dense else 'blocks.0.gamma'
    with pytest.raises(ValueError, match=r"vit: do not know the key 'blocks\.0\.gamma'"):
        convert(state | {strange: torch.ones(1)})


def test_detector_of_detectron2():
    model, neck = ViT(ARCH, **DENSE), SimpleFPN(16, 8)
    state = {official(key, 'detectron2'): value for key, value in model.state_dict().items()}
    convs = {0: (4, 5), 1: (1, 2), 2: (0, 1), 3: (1, 2)}
    for key, value in neck.state_dict().items():
        level, layer, leaf = re.fullmatch(r'levels\.(\d)\.(\d)\.(\w+)', key).groups()
        first = convs[int(level)][0]
        if int(layer) >= first:  # conv, norm, conv, norm
            place = (int(layer) - first) // 2
            norm = 'norm.' if (int(layer) - first) % 2 else ''
            layer = f'{convs[int(level)][place]}.{norm}'.rstrip('.')
        state[f'backbone.simfp_{int(level) + 2}.{layer}.{leaf}'] = value
    head = {'roi_heads.box_head.fc1.weight': torch.ones(1)}
    out = convert(state | head)
    assert {k for k in out if not k.startswith('backbone.')} == {
        'roi_head.bbox_head.shared_fcs.0.weight',
        *(f'neck.{key}' for key in neck.state_dict()),
    }
    for key, value in neck.state_dict().items():
        assert torch.equal(out[f'neck.{key}'], value), key
    with pytest.raises(ValueError, match=r"do not know the key 'simfp_6\.0\.weight'"):
        convert(state | {'backbone.simfp_6.0.weight': torch.ones(1)})


def test_masked_autoencoder_into_vitdet(tmp_path):
    source = ViT(
        ARCH, patch_size=14, **dict(SMALL, pretrain_img_size=56, img_size=56), final_norm=True
    )
    state = {official(key, 'timm'): value for key, value in source.state_dict().items()}
    state |= {'mask_token': torch.ones(1), 'decoder_embed.weight': torch.ones(1)}
    torch.save(dict(model=state), tmp_path / 'mae.pth')
    model = ViT(ARCH, **DENSE)
    model.load_pretrained(str(tmp_path / 'mae.pth'))
    torch.testing.assert_close(model.stem.position, source.stem.position)
    assert model.stem.proj.weight.shape == (16, 3, 16, 16)
    assert (
        model.stages[1].blocks[1].attn.qkv.weight.equal(source.stages[1].blocks[1].attn.qkv.weight)
    )
    assert not any(block.attn.relative.rel_h.any() for s in model.stages for block in s.blocks)
    larger = ViT(ARCH, **dict(DENSE, pretrain_img_size=96))
    larger.load_pretrained(str(tmp_path / 'mae.pth'))
    assert larger.stem.position.shape == (1, 37, 16)
    assert torch.equal(larger.stem.position[:, 0], source.stem.position[:, 0])


def test_positions_without_a_class_token():
    state = ViT(ARCH, **DENSE).state_dict()
    position = state['stem.position']
    model = ViT(ARCH, **DENSE)
    model.load_strictly(state | {'stem.position': position[:, 1:]}, 'the file')
    assert torch.equal(model.stem.position[:, 1:], position[:, 1:])
    out = convert(
        {
            'pos_embed': position[:, 1:].unflatten(1, (4, 4)),
            'blocks.0.attn.qkv.weight': torch.ones(1),
            'patch_embed.proj.weight': torch.ones(1),
        }
    )
    assert torch.equal(out['stem.position'][:, 1:], position[:, 1:])


def test_images_that_are_not_square():
    """timm's network of an ``img_size`` with two sides, as timm's formulas have it."""
    torch.manual_seed(0)
    kwargs = dict(SMALL, pretrain_img_size=[48, 80], img_size=(48, 80), class_token=False)
    model = ViT(ARCH, **kwargs, relative=True).eval()
    assert model.stem.position.shape == (1, 1 + 3 * 5, 16)
    relative = model.stages[0].blocks[0].attn.relative
    assert (len(relative.rel_h), len(relative.rel_w)) == (5, 9)
    x = torch.rand(1, 3, 48, 80)
    tokens, size = model.stem(x)
    assert size == (3, 5)
    expected = model.stem.proj(x).flatten(2).transpose(1, 2) + model.stem.position[:, 1:]
    torch.testing.assert_close(tokens, expected)

    state = model.state_dict()
    other = ViT(ARCH, **kwargs, relative=True)
    other.load_strictly(state, 'the file')  # 1 + 3 * 5 = 4 * 4 as well
    assert torch.equal(other.stem.position, model.stem.position)
    other.load_strictly(state | {'stem.position': model.stem.position[:, 1:]}, 'the file')
    assert torch.equal(other.stem.position[:, 1:], model.stem.position[:, 1:])
    square = ViT(ARCH, **SMALL)
    other = ViT(ARCH, **dict(kwargs, class_token=True))
    other.load_strictly(square.state_dict(), 'the file')
    grid = square.stem.position[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    grid = nn.functional.interpolate(grid, (3, 5), mode='bicubic', align_corners=False)
    torch.testing.assert_close(other.stem.position[:, 1:], grid.flatten(2).transpose(1, 2))
    with pytest.raises(ValueError, match=r'the file: stem\.position: 16 absolute positions are'):
        square.load_strictly(other.state_dict(), 'the file')


def test_layer_scales():
    """Of MAE's fine-tuning: weights without them leave them at their initial value."""
    torch.manual_seed(0)
    plain, scaled = ViT(ARCH, **SMALL).eval(), ViT(ARCH, **SMALL, layer_scale=1.0).eval()
    scaled.load_strictly(plain.state_dict(), 'the file')
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(scaled(x), plain(x))
    scaled(x)[0].sum().backward()
    block = scaled.stages[0].blocks[0]
    assert block.gamma1.grad.any() and block.gamma2.grad.any()
    tokens = torch.rand(1, 16, 16)
    with torch.no_grad():
        block.gamma1.fill_(0.5), block.gamma2.fill_(-2)
        expected = tokens + 0.5 * block.attn(block.norm1(tokens), (4, 4))
        expected = expected - 2 * block.mlp(block.norm2(expected))
        torch.testing.assert_close(block(tokens, (4, 4)), expected)
    with pytest.raises(ValueError, match='layer_scale must be finite and not negative, got -1'):
        ViT(ARCH, **SMALL, layer_scale=-1)


def test_layers_of_the_decay():
    model = ViT('base', **VITDET)
    names = 'stem.position', 'stem.proj.bias', 'stages.0.blocks.0.norm1.bias'
    assert [model.get_layer_depth(name)[0] for name in names] == [0, 0, 1]
    assert model.get_layer_depth('stages.3.blocks.2.attn.relative.rel_h') == (12, 14)
    assert model.get_layer_depth('neck.levels.0.0.weight', 'backbone.') == (13, 14)


@pytest.mark.parametrize('size', [(6, 10), (7, 5), (1, 2)])
def test_levels(size):
    neck = MODELS.build(dict(type='SimpleFPN', in_channels=[8, 8], out_channels=4))
    maps = neck([torch.rand(1, 8, 3, 3), torch.rand(1, 8, *size)])
    height, width = size
    expected = [(4 * height, 4 * width), (2 * height, 2 * width), size]
    expected.append((max(height // 2, 1), max(width // 2, 1)))
    expected.append(tuple(-(-side // 2) for side in expected[-1]))
    assert [tuple(m.shape[2:]) for m in maps] == expected
    assert all(m.is_contiguous() for m in maps)
    assert torch.equal(maps[4], maps[3][:, :, ::2, ::2])


def test_levels_written_out():
    """Strides 4, 8, 16 and 32 as in ViTDet's code; its norms are over channels."""
    neck = SimpleFPN(8, 4).double()
    for parameter in neck.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 8, 5, 6, dtype=torch.float64)

    def norm(x, layer):
        mean = x.mean(1, keepdim=True)
        var = (x - mean).square().mean(1, keepdim=True)
        weight, bias = (t[:, None, None] for t in (layer.weight, layer.bias))
        return (x - mean) / (var + 1e-6).sqrt() * weight + bias

    def up(x, layer):
        return nn.functional.conv_transpose2d(x, layer.weight, layer.bias, 2)

    maps = neck([x])
    levels = [[m for m in level if any(True for _ in m.parameters())] for level in neck.levels]
    first, middle, second, *rest = levels[0]
    starts = [
        up(nn.functional.gelu(norm(up(x, first), middle)), second),
        up(x, levels[1][0]),
        x,
        nn.functional.max_pool2d(x, 2),
    ]
    tails = [rest, levels[1][1:], levels[2], levels[3]]
    for start, (conv1, norm1, conv3, norm3), found in zip(starts, tails, maps[:4], strict=True):
        y = norm(nn.functional.conv2d(start, conv1.weight), norm1)
        y = norm(nn.functional.conv2d(y, conv3.weight, padding=1), norm3)
        torch.testing.assert_close(found, y)


def test_class_token_goes_to_a_classifier():
    model = ViT(ARCH, **dict(SMALL), final_norm=True, pooled=True)
    (out,) = model(torch.rand(2, 3, 64, 80))
    assert out.shape == (2, 16)
    torch.testing.assert_close(out.mean(1), torch.zeros(2), atol=1e-5, rtol=0)


def test_errors():
    for kwargs, match in (
        (dict(class_token=True, relative=True), 'class_token=True excludes'),
        (dict(relative='biases'), "relative must be one of False, True, bias, got 'biases'"),
        (dict(class_token=False, pooled=True), 'needs class_token=True'),
        (dict(img_size=100), 'img_size must be a multiple of 16, got 100'),
        (dict(global_blocks=(4,)), r'global_blocks must lie in 0\.\.3, got \(4,\)'),
        (dict(partial_patches='cut'), "partial_patches must be one of pad, drop, got 'cut'"),
        (dict(pooled=True, out_indices=(0,)), r'out_indices must be \(2,\)'),
    ):
        with pytest.raises(ValueError, match=match):
            ViT(ARCH, **{**SMALL, **kwargs})
    with pytest.raises(ValueError, match='in_channels must be a multiple of 4, got 6'):
        SimpleFPN(6)
    with pytest.raises(ValueError, match=r'scales must be some of .* got \(8,\)'):
        SimpleFPN(8, scales=(8,))
    with pytest.raises(ValueError, match='at least the number of scales 4, got 3'):
        SimpleFPN(8, num_outs=3)
    with pytest.raises(ValueError, match='does not fit this ViT'):
        ViT(ARCH, **DENSE).load_strictly(
            ViT(dict(ARCH, heads=4), **SMALL).state_dict()
            | {'blocks.9.norm1.weight': torch.ones(16)},
            'the file',
        )
