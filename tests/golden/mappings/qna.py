"""QnA-ViT by its official arguments."""

import torch
from torch import Tensor, nn

from hybrid_mm.backbones import QnAViT
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d
from mappings.common import Classifier, Config, convert_part, load


def _scales(kind: str, queries: int, weights: dict[str, Tensor]) -> str:
    """Write the scales of attention, of which the authors have several kinds, as full tables."""
    for key in [key for key in weights if key.endswith('rpe_bias')]:
        part, (positions, columns) = key.removesuffix('rpe_bias'), weights[key].shape
        table = torch.ones(1, 1, positions, columns)
        if kind == 'normal_elementwise':
            table = table * weights[f'{part}attn_scale_weights']
        elif kind == 'ones':
            table = weights.pop(f'{part}attn_scale_pos').view_as(table)
        elif kind == 'avg':
            table = table / queries
        elif kind == 'posneg':
            table[..., columns // 2 :] = -1
        else:
            return kind
        weights[f'{part}attn_scale_weights'] = table
    return 'normal'


def _operator(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    weights = {k.removeprefix('params/'): v for k, v in weights.items()}
    size = config.take('kernel_size')
    config.ignore(padding=(size // 2,), use_bias=(False,), qna_normalize_stop_grads=...)
    config.ignore(pos_embedding_type=('relative_pos',), scale_rpe_bias=(False,))
    channels, queries = config.take('features'), config.take('n_queries', default=2)
    model = LearnedQueryAttention2d(
        weights['Wk'].shape[0],
        channels,
        config.take('heads'),
        size,
        config.take('stride', default=1),
        queries,
        config.take('normalize_q', default=True),
        config.take('out_features'),
        _scales(config.take('attn_scale', default='normal'), queries, weights),
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
    stages, queries = len(arch['qna_depths']), config.take('qna_num_queries', default=2)
    model = QnAViT(
        arch,
        queries,
        config.take('qna_normalize_q', default=False),
        config.take('layer_scale'),
        norm_outputs='last' if classes else 'none',
        attention_scale=_scales(
            config.take('qna_attention_scale', default='normal'), queries, weights
        ),
        out_indices=(stages - 1,) if classes else tuple(range(stages)),
    )
    config.ignore(
        n_stages=(stages,),
        qna_down_skip=('conv1x1',),
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
