# The recipe of fine-tuning after ImageNet-1k and the drop path rate of the model garden after JFT.
_base_ = './maxvit-tiny_32xb16-30e_in1k-384.py'

checkpoint = 'hybrid_mm://maxvit-xlarge_in21k'
model = dict(
    backbone=dict(
        arch='xlarge', drop_path_rate=0.2 * 23 / 24, init_cfg=dict(checkpoint=checkpoint)
    ),
    head=dict(in_channels=1536, hidden_dim=1536),
)
