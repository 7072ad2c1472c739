_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_qna.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_qna.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.QnAViT',
        arch='tiny',
        norm_outputs='last',
        drop_path_rate=0.05,
        out_indices=(3,),
    ),
    head=dict(in_channels=512),
)
