# The windows of attention grow with the image and their tables are interpolated: those of the
# published file, 14 and 7, do not divide its maps.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_qna_384.py',
    '../_base_/schedules/imagenet_bs1024_adamw_30e_qna.py',
    '../_base_/default_runtime_cls.py',
]
sizes = dict(embed_dim=96, qna_depths=(2, 3, 6, 0), window_depths=(0, 0, 12, 2))
heads = dict(qna_heads=(6, 12, 24, 48), window_heads=(3, 6, 12, 24))
checkpoint = 'hybrid_mm://qna-base_in1k'
model = dict(
    backbone=dict(
        type='hybrid_mm.QnAViT',
        arch=dict(kernel_sizes=(3, 3, 3, 3), window_sizes=(7, 7, 24, 12), **sizes, **heads),
        norm_outputs='last',
        drop_path_rate=0.5,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    head=dict(in_channels=768),
)
