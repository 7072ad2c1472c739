# As imagenet_bs4096_sgd_130e.py in 350 epochs: 10 linear warm-up, cosine decay to 0; tested are
# averaged weights.
_base_ = './imagenet_bs4096_sgd_130e.py'

train_cfg = dict(max_epochs=350)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=10,
        end=350,
        T_max=340,
        convert_to_iter_based=True)
]
