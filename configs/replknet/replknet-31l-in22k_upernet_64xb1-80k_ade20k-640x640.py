_base_ = './replknet-31b-in22k_upernet_64xb2-40k_ade20k-640x640.py'

checkpoint = 'hybrid_mm://replknet-31l_in22k'
model = dict(
    backbone=dict(arch='31l', init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
train_cfg = dict(max_iters=80000, val_interval=8000)
_base_.param_scheduler[0].end = 800
_base_.param_scheduler[1].end = 80000
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=64)  # 64 GPUs x 1 crop
