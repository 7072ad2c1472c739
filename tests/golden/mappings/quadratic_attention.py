"""attention-cnn: the attention modules, BertImage, and attention built from a convolution."""

from torch import Tensor, nn

from hybrid_mm.backbones.quadratic_attention_nets import QuadraticAttentionEncoder
from hybrid_mm.convert import convert
from hybrid_mm.layers import QuadraticAttention2d
from mappings.common import Classifier, Config, convert_part, load

_SOURCE = 'attention-cnn'


def _attention(config: Config, learned: bool) -> dict:
    """Arguments of the attention by the official names or those of the stored cases."""
    config.ignore(maxwh=..., attention_probs_dropout_prob=..., hidden_dropout_prob=...)
    config.ignore(attention_gaussian_blur_trick=(False,), share_position_encoding=(False,))
    config.ignore(gaussian_init_mu_std=..., gaussian_init_sigma_std=..., initializer_range=...)
    config.ignore(query_positional_score=(False,), add_positional_encoding_to_input=(False,))
    isotropic = config.take('isotropic', 'attention_isotropic_gaussian', default=False)
    content = config.take('use_data', 'use_attention_data', default=False)
    positions = config.take('maxpos', 'max_position_embeddings', default=16)
    width = config.take('pe', 'position_encoding_size', default=-1)
    if not learned:
        if content:
            raise ValueError(f'cannot map use_attention_data={content!r} of quadratic attention')
        return dict(mode='isotropic' if isotropic else 'full')
    return dict(
        mode='learned_content' if content else 'learned',
        positions=positions,
        position_channels=None if width == -1 else width,
    )


def _from_conv(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    kernel, dilation = config.take('kernel_size', default=3), config.take('dilation', default=1)
    pair = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    steps = (dilation, dilation) if isinstance(dilation, int) else tuple(dilation)
    conv = nn.Conv2d(
        config.take('in_channels'),
        config.take('out_channels'),
        pair,
        config.take('stride', default=1),
        tuple(d * (k // 2) for d, k in zip(steps, pair, strict=True)),
        steps,
        bias='conv.bias' in weights,
    ).double()
    alpha = config.take('alpha')
    config.done()
    load(conv, {k.removeprefix('conv.'): v for k, v in weights.items()})
    return QuadraticAttention2d.from_conv(conv, alpha)


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    gaussian = config.take('use_gaussian_attention', default=True)
    learned = config.take('use_learned_2d_encoding', default=False)
    if gaussian == learned:
        raise ValueError(
            f'cannot map use_gaussian_attention={gaussian!r}, use_learned_2d_encoding={learned!r}'
        )
    backbone = QuadraticAttentionEncoder(
        channels=config.take('hidden_size'),
        depth=config.take('num_hidden_layers'),
        heads=config.take('num_attention_heads'),
        hidden_channels=config.take('intermediate_size'),
        patch_size=config.take('pooling_concatenate_size', default=2),
        ln_eps=config.take('layer_norm_eps', default=1e-12),
        **_attention(config, learned),
    )
    classes = config.take('num_classes', default=10)
    config.ignore(
        hidden_act=('gelu',), pooling_use_resnet=(False,), vocab_size_or_config_json_file=...
    )
    config.ignore(type_vocab_size=...)
    config.done()
    return Classifier(backbone, classes).load(convert(weights))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for an official one."""
    config = Config(config)
    if 'convolution' in module:
        return _from_conv(config, weights)
    if module in ('BertImage', 'BERTImage'):
        return _network(config, weights)
    if module not in ('GaussianSelfAttention', 'Learned2DRelativeSelfAttention'):
        raise ValueError(f'unknown module {module!r}')
    channels = config.take('dim', 'hidden_size')
    heads = config.take('heads', 'num_attention_heads')
    arguments = _attention(config, module == 'Learned2DRelativeSelfAttention')
    config.done()
    model = QuadraticAttention2d(channels, channels, heads, **arguments)
    prefix = 'encoder.layer.0.attention.self.'
    return load(model, convert_part(weights, prefix, 'blocks.0.attn.', _SOURCE))
