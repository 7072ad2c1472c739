# XL on ImageNet-1k alone is an experiment of TensorFlow's model garden, which adds CutMix, has a
# lower rate, a cosine that counts from the beginning, and does not clip.
_base_ = './maxvit-tiny_32xb128-300e_in1k.py'

model = dict(
    backbone=dict(arch='xlarge', drop_path_rate=0.7 * 23 / 24),
    head=dict(in_channels=1536, hidden_dim=1536),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
_base_.param_scheduler[1].begin = 0
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=None)
