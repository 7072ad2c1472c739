# 300 epochs and a cool-down of 10, rates by epoch; the crop ratio of the test is 0.9.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_nat.py',
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
# a LinearLR by epoch is through one step before its end
_base_.param_scheduler[0].update(end=21, convert_to_iter_based=False)
_base_.param_scheduler[1].update(eta_min=1e-5, convert_to_iter_based=False)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
_base_.val_dataloader.dataset.pipeline[1].scale = 248
_base_.test_dataloader.dataset.pipeline[1].scale = 248
