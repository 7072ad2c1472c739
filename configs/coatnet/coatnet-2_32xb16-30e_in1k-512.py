# Fine-tuning of the weights for 224 x 224, with the recipe of MaxViT; the authors published none.
_base_ = [
    '../_base_/models/classifier_tanh.py',
    '../_base_/datasets/imagenet_1k_maxvit_512.py',
    '../_base_/schedules/imagenet_bs512_adamw_30e_maxvit.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.CoAtNet',
        arch='2',
        img_size=512,
        drop_path_rate=0.5,
        norm_outputs=True,
        pooled=True,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://coatnet-2_in1k'),
    ),
    head=dict(in_channels=1024, hidden_dim=1024),
)
train_dataloader = dict(batch_size=16)
