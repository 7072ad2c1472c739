# Fine-tuning of the weights for 224 x 224, with a new head.
_base_ = [
    '../_base_/models/classifier_tanh.py',
    '../_base_/datasets/imagenet_1k_maxvit_512.py',
    '../_base_/schedules/imagenet_bs512_adamw_30e_maxvit.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.MaxViT',
        arch='tiny',
        window_size=16,
        drop_path_rate=0.2 * 10 / 11,
        norm_outputs=True,
        pooled=True,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://maxvit-tiny_in1k'),
    ),
    head=dict(in_channels=512, hidden_dim=512),
)
train_dataloader = dict(batch_size=16)
