# The paper's recipe without its teacher: it distils from a RegNetY-16GF with a second head, which
# is left out here.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs2048_adamw_1000e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(type='hybrid_mm.LeViT', arch='128s', pooled=True, out_indices=(4,)),
    neck=None,
    head=dict(type='LeViTClsHead', distillation=False, in_channels=384),
)
train_dataloader = dict(batch_size=256, sampler=dict(type='RepeatAugSampler'))
