_base_ = './replknet-31b_32xb32-30e_in1k-384.py'

load_from = None
checkpoint = 'hybrid_mm://replknet-31b_in22k'
model = dict(
    backbone=dict(drop_path_rate=0.3, init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
)
_base_.param_scheduler[1].eta_min_ratio = 0.75  # from 4e-4 to 3e-4
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=512)  # 32 GPUs x 16 images
