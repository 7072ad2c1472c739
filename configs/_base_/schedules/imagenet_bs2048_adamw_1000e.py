# As imagenet_bs1024_adamw_300e_deit.py with batches of 2048, 1000 epochs, gradients clipped unit by
# unit, and no weight decay for biases by distance either, as LeViT is trained. The published rate
# of 0.0005 is for 512 images.
_base_ = './imagenet_bs1024_adamw_300e_deit.py'

train_cfg = dict(max_epochs=1000)
_base_.param_scheduler[0].start_factor = 1e-6 / 2e-3
_base_.param_scheduler[1].end = 1000
optim_wrapper = dict(
    type='hybrid_mm.AGCOptimWrapper',
    optimizer=dict(lr=2e-3, weight_decay=0.025),
    clip_grad=dict(_delete_=True, clip_factor=0.01),
    paramwise_cfg=dict(custom_keys=dict(_delete_=True, distance_bias=dict(decay_mult=0.0))),
)

# 8 GPUs x 256 images; 1,281,167 / 2,048 = 626 iterations an epoch
auto_scale_lr = dict(base_batch_size=2048)
