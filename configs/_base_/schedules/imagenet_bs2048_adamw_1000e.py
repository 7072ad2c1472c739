# As imagenet_bs1024_adamw_300e_deit.py with batches of 2048, 1000 epochs, gradients clipped at norm
# 0.01, and no weight decay for biases by distance either, as LeViT is trained. It is our reading
# that the published rate of 0.0005 is for 512 images.
_base_ = './imagenet_bs1024_adamw_300e_deit.py'

train_cfg = dict(max_epochs=1000)
_base_.param_scheduler[1].end = 1000
optim_wrapper = dict(
    optimizer=dict(lr=2e-3, weight_decay=0.025),
    clip_grad=dict(_delete_=True, max_norm=0.01),
    paramwise_cfg=dict(custom_keys=dict(distance_bias=dict(decay_mult=0.0))),
)

# 8 GPUs x 256 images; 1,281,167 / 2,048 = 626 iterations an epoch
auto_scale_lr = dict(base_batch_size=2048)
