# MegData73M, the data of the pre-training, is not public.
_base_ = './replknet-31b-in22k_upernet_64xb2-40k_ade20k-640x640.py'

checkpoint = 'hybrid_mm://replknet-xl_megdata73m'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        arch='xl', norm_outputs='all', drop_path_rate=0.5, init_cfg=dict(checkpoint=checkpoint)
    ),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)
train_cfg = dict(max_iters=160000, val_interval=16000)
_base_.param_scheduler[0].end = 1500
_base_.param_scheduler[1].end = 160000
auto_scale_lr = dict(base_batch_size=32)  # 16 GPUs x 2 crops
