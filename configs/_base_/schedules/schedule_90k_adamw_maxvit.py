# AdamW for detectors with the recipe of MaxViT in TensorFlow's model garden: 90k iterations at
# batch 256 (196 epochs), cosine to 3 % of the rate that counts from the first iteration, over 6,000
# of which the rate grows from 0; moving average of weights and statistics; bfloat16. The original
# names kernels and weights to decay, but its optimizer decays what is not excluded, so all: a slip,
# here weights alone do. It clips the gradient of each core, divided by the number of cores, at norm
# 1, which hardly ever happens; here nothing is clipped.
max_iters = 90000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=6000),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.03, by_epoch=False, begin=0, end=max_iters),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.999), eps=1e-7, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys=dict(relative_bias=dict(decay_mult=0.0)),
    ),
)
custom_hooks = [dict(type='EMAHook', momentum=2e-4, update_buffers=True)]

# 32 GPUs x 8 images; 117,266 / 256 = 459 iterations an epoch
auto_scale_lr = dict(enable=False, base_batch_size=256)
