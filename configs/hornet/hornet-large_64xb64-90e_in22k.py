# The number of classes is not stated: the README's 209 M parameters belong to about 10,500 of them.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet22k.py',
    '../_base_/schedules/imagenet_bs4096_adamw_90e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    data_preprocessor=dict(num_classes=21841),
    backbone=dict(
        type='hybrid_mm.HorNet', arch='large', drop_path_rate=0.2, pooled=True, out_indices=(3,)
    ),
    head=dict(in_channels=1536, num_classes=21841),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.1), clip_grad=dict(_delete_=True, max_norm=5.0))
train_dataloader = dict(batch_size=64)
