# From ImageNet-22k, whose recipe was not published. 64 images a GPU; how many GPUs is not stated.
# The authors' `sched: linear` is unknown to their train.py, which then keeps the rate.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit_384.py',
    '../_base_/schedules/imagenet_bs512_adamw_30e.py',
    '../_base_/default_runtime_cls.py',
]

checkpoint = 'hybrid_mm://dinat-large_in22k'
model = dict(
    backbone=dict(
        type='hybrid_mm.DiNAT',
        arch='large',
        dilations='in1k-384',
        drop_path_rate=0.35,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    head=dict(in_channels=1536),
    train_cfg=None,
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-10))
