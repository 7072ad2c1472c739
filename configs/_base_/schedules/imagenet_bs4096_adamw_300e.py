# AdamW for ImageNet-1k with the recipe of ConvNeXt: 20 epochs of warm-up, cosine to 1e-6 at epoch
# 300, moving average of weights and buffers; no weight decay for biases, norms, other vectors and
# position embeddings.
_base_ = './imagenet_bs1024_adamw_300e_swin.py'

_base_.param_scheduler[0].start_factor = 1e-6  # from (almost) 0
_base_.param_scheduler[1].update(eta_min=1e-6, begin=20)
optim_wrapper = dict(
    optimizer=dict(lr=4e-3),
    clip_grad=None,
    paramwise_cfg=dict(custom_keys=dict(_delete_=True)),
)
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True)]

# 32 GPUs x 128 images; 1,281,167 / 4,096 = 313 iterations an epoch
auto_scale_lr = dict(base_batch_size=4096)
