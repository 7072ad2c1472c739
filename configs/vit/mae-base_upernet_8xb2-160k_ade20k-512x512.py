# Maps of blocks 3, 5, 7 and 11. MMSegmentation's network also has a bias by relative position,
# which starts from zero. 8 GPUs x 2 crops
_base_ = './deit-base_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'checkpoints/mae-base_in1k.pth'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=768, heads=12, depths=[4, 2, 2, 4]),
        init_cfg=dict(checkpoint=checkpoint),
    ),
    neck=dict(type='Feature2Pyramid', embed_dim=768, rescales=[4, 2, 1, 0.5]),
    auxiliary_head=dict(in_index=2),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.65, flat_decay_mult=0.0),
)
