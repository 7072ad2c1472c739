# AdamW of Mask2Former: 50 epochs of 118,000 images at batch 16 = 368,750 iterations, steps at
# 8/9 and 26/27 of them; a tenth of the rate for the backbone, no weight decay for norms and
# embeddings. Tables of relative positions decay, unlike those of Swin.
max_iters = 368750
interval = 5000
# every 5,000 iterations, and once at the end
train_cfg = dict(
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=interval,
    dynamic_intervals=[(max_iters // interval * interval + 1, max_iters)],
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[327778, 355092],
        gamma=0.1,
    )
]
embedding = dict(lr_mult=1.0, decay_mult=0.0)
# norm_decay_mult does not reach what a custom key names, and of keys that fit the longest counts:
# these are of the norms of our backbones, and of no head
backbone_norm = dict(lr_mult=0.1, decay_mult=0.0)
norms = [f'norm{i}.{kind}' for i in (1, 2) for kind in ('weight', 'bias')]
norms += ['embed.norm', *(f'backbone.stages.{stage}.norm' for stage in range(4))]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.0001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1, decay_mult=1.0),
            **dict.fromkeys(norms, backbone_norm),
            'query_embed': embedding,
            'query_feat': embedding,
            'level_embed': embedding,
        },
        norm_decay_mult=0.0,
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
)

# 8 GPUs x 2 images
auto_scale_lr = dict(enable=False, base_batch_size=16)
