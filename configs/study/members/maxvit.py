# MBConv, attention in windows and on grids; windows of 8 x 10 fill all maps.
backbone = dict(
    type='hybrid_mm.MaxViT',
    arch=dict(
        depths=(1, 1, 3, 2),
        channels=(24, 48, 96, 192),
        stem=dict(channels=(24, 24), bias=True),
        conv=dict(act='gelu_tanh', padding='same'),
        # the paper's momentum of 0.01 is for long trainings: after 400 iterations, 2 percent of the
        # running statistics would still be their initial values
        norm=dict(eps=0.001, momentum=0.1),
        ln_eps=1e-05,
        head_width=12,
        approximate='tanh',
    ),
    window_size=(8, 10),
)
widths = [24, 48, 96, 192]
