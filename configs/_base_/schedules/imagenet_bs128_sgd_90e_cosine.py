# SGD for ImageNet-1k: 90 epochs, linear warm-up from a quarter of the rate in 5, cosine decay to 0,
# weight decay on every parameter (ResNets of ACmix).
_base_ = './imagenet_bs256_sgd_40e.py'

train_cfg = dict(max_epochs=90)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.25,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=5,
        end=90,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(optimizer=dict(lr=0.1))

# 8 GPUs x 16 images; 1,281,167 / 128 = 10,009 iterations an epoch, 900,810 in all
auto_scale_lr = dict(base_batch_size=128)
