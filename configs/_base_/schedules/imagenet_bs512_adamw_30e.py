# AdamW for 30 more epochs of a network pre-trained on ImageNet-22k: linear decay from 5e-5 to 0,
# no warm-up, gradients clipped at norm 5; no weight decay for vectors and tables of positions.
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=1)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0.0,
        power=1.0,
        by_epoch=True,
        begin=0,
        end=30,
        convert_to_iter_based=True)
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=5e-5, weight_decay=1e-4, eps=1e-8, betas=(0.9, 0.999)),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys=dict(relative_bias=dict(decay_mult=0.0))))

# 8 GPUs x 64 images; 1,281,167 / 512 = 2,502 iterations an epoch
auto_scale_lr = dict(enable=False, base_batch_size=512)
