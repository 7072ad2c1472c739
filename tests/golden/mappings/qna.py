"""QnA-ViT by its official arguments."""

from torch import Tensor, nn

from hybrid_mm.backbones import QnAViT
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d
from mappings.common import Classifier, Config, convert_part, load


def _operator(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    weights = {k.removeprefix('params/'): v for k, v in weights.items()}
    size = config.take('kernel_size')
    config.ignore(padding=(size // 2,), use_bias=(False,))
    channels = config.take('features')
    model = LearnedQueryAttention2d(
        weights['Wk'].shape[0],
        channels,
        config.take('heads'),
        size,
        config.take('stride', default=1),
        config.take('n_queries', default=2),
        config.take('normalize_q', default=True),
        config.take('out_features'),
        config.take('attn_scale', default='normal'),
    )
    config.done()
    part = 'QnAStage_0/QnA_Block_1/FusedKQnA_0/', 'stages.0.blocks.0.attn.'
    return load(model, convert_part(weights, *part, 'qna'))


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    classes = config.take('num_classes', default=0)
    arch = dict(
        embed_dim=config.take('base_dim'),
        qna_depths=config.take('qna_layers'),
        qna_heads=config.take('qna_heads'),
        kernel_sizes=config.take('qna_receptive_field'),
        window_depths=config.take('lsa_layers'),
        window_sizes=config.take('lsa_window'),
        window_heads=config.take('lsa_heads'),
    )
    stages = len(arch['qna_depths'])
    model = QnAViT(
        arch,
        config.take('qna_num_queries', default=2),
        config.take('qna_normalize_q', default=False),
        config.take('layer_scale'),
        norm_outputs='last' if classes else 'none',
        attention_scale=config.take('qna_attention_scale', default='normal'),
        out_indices=(stages - 1,) if classes else tuple(range(stages)),
    )
    config.ignore(
        n_stages=(stages,),
        qna_pos_embedding_type=('relative_pos',),
        qna_implementation=...,
        qna_attention_dropout=...,
        mlp_ratio=...,
        mlp_dropout=...,
        lsa_attention_dropout=...,
        lsa_pos_embedding_type=('relative_pos',),
        activation_fn=...,
        classification_head_type=('gap',),
        stem_type=('patch',),
        drop_path=...,
        qna_normalize_stop_grads=...,
        drop_path_downsample=...,
    )
    config.done()
    state = convert(weights, 'qna')
    return Classifier(model, classes).load(state) if classes else load(model, state)


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.endswith('FusedKQnA'):
        return _operator(config, weights)
    if module.endswith('QnAViT'):
        return _network(config, weights)
    raise ValueError(f'unknown module {module!r}')
