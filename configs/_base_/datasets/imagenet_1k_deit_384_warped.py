# As imagenet_1k_deit_384.py, tested on whole images that are stretched to 384 x 384.
_base_ = './imagenet_1k_deit_384.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=384, backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
