# The paper trains as SLaK does; its own list of values is in an appendix that is not public.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs4096_adamw_120e_pelk.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.PeLK',
        arch='tiny',
        drop_path_rate=0.1,
        norm_cfg=dict(type='SyncBN'),
        pooled=True,
        out_indices=(3,),
    ),
    head=dict(in_channels=998),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='hybrid_mm.SparsityHook', sparsity=0.4, interval=2000, prune_rate=0.5),
]
