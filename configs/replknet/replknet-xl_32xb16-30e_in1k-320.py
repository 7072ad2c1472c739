# The fine-tuning of XL is not published: it is that of 31L, at the published size and statistics.
_base_ = './replknet-31b-in22k_32xb16-30e_in1k-384.py'

mean = [127.5, 127.5, 127.5]
checkpoint = 'hybrid_mm://replknet-xl_megdata73m'
model = dict(
    data_preprocessor=dict(mean=mean, std=mean),
    backbone=dict(arch='xl', init_cfg=dict(checkpoint=checkpoint)),
    head=dict(in_channels=2048),
)
_base_.train_dataloader.dataset.pipeline[1].scale = 320
_base_.train_dataloader.dataset.pipeline[3].hparams.pad_val = [128, 128, 128]
_base_.train_dataloader.dataset.pipeline[4].update(fill_color=mean, fill_std=mean)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=365, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=320),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
