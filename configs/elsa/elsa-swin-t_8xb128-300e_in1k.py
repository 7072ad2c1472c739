# Published with amp: train with --amp. The tables of relative positions decay. The crop ratio of
# the test is 0.9.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_swin.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.ELSASwin',
        arch='tiny',
        always_shift=False,
        drop_path_rate=0.1,
        out_indices=(3,),
    ),
    head=dict(in_channels=768),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(relative_bias=dict(decay_mult=1.0))))
_base_.val_dataloader.dataset.pipeline[1].scale = 248
_base_.test_dataloader.dataset.pipeline[1].scale = 248
