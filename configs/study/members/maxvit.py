# MBConv, attention in windows and on grids; windows of 8 x 10 fill all maps.
backbone = dict(
    type='hybrid_mm.MaxViT',
    arch=dict(
        depths=(1, 1, 2, 1),
        channels=(32, 64, 128, 256),
        stem=dict(channels=(32, 32), bias=True),
        conv=dict(act='gelu_tanh', padding='same'),
        norm=dict(eps=0.001, momentum=0.01),
        ln_eps=1e-05,
        head_width=16,
        approximate='tanh',
    ),
    window_size=(8, 10),
)
widths = [32, 64, 128, 256]
