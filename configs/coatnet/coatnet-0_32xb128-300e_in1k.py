# The recipe is from memory of the paper; not verified.
_base_ = [
    '../_base_/models/classifier_tanh.py',
    '../_base_/datasets/imagenet_1k.py',
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
_base_.train_dataloader.dataset.pipeline[3].magnitude_level = 15
_base_.optim_wrapper.optimizer.lr = 1e-3
