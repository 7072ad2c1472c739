# Plain vision transformer with patches of 16 x 16; its maps are resized to four strides.
backbone = dict(
    type='hybrid_mm.ViT',
    arch=dict(embed_dim=160, heads=4, depths=(2, 3, 3, 2)),
    pretrain_img_size=(256, 320),
    img_size=(256, 320),
)
widths = [160, 160, 160, 160]
scales = [4, 2, 1, 0.5]
