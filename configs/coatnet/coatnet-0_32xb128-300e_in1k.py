# The authors published no code; the recipe is that of the paper's appendix as far as it is known.
_base_ = [
    '../_base_/models/classifier_tanh.py',
    '../_base_/datasets/imagenet_1k_maxvit.py',
    '../_base_/schedules/imagenet_bs4096_adamw_300e_maxvit.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.CoAtNet',
        arch='0',
        drop_path_rate=0.2,
        norm_outputs=True,
        pooled=True,
        out_indices=(3,),
    ),
    head=dict(in_channels=768, hidden_dim=768),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
custom_hooks = []
