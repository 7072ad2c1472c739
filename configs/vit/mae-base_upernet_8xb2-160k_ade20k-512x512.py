# Maps of blocks 3, 5, 7 and 11. Class token and positions decay, as MMSegmentation's constructor
# lets them. With --tta, shorter sides are at least 512.
_base_ = './deit-base_upernet_8xb2-160k_ade20k-512x512.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=768, heads=12, depths=[4, 2, 2, 4]),
        img_size=512,
        relative='bias',
        layer_scale=1.0,
        init_cfg=dict(checkpoint='hybrid_mm://mae-base_in1k'),
    ),
    neck=dict(type='Feature2Pyramid', embed_dim=768, rescales=[4, 2, 1, 0.5]),
    decode_head=dict(channels=768),
    auxiliary_head=dict(in_index=2),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.65, flat_decay_mult=0.0),
)
for scale in _base_.tta_pipeline[1].transforms[0][:2]:
    scale.scale = (2048, 512)
