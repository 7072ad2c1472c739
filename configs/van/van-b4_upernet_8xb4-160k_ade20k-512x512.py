# 4 images per GPU as in the official B4 configs. Their comment says 8 GPUs x 2, and the paper says
# batch 16; a batch of 32 at this rate is unverified. On 4 GPUs it is 16.
_base_ = './van-b0_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b4_in1k'
model = dict(
    backbone=dict(arch='b4', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)

train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=32)
