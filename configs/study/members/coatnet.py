# MBConv, then attention over the whole map.
backbone = dict(
    type='hybrid_mm.CoAtNet',
    arch=dict(
        depths=(1, 2, 4, 3),
        channels=(32, 64, 128, 256),
        kinds=('C', 'C', 'T', 'T'),
        stem=dict(channels=(32, 32), bias=False),
        conv=dict(act='gelu', padding='symmetric'),
        attention=dict(),
        norm=dict(eps=1e-05, momentum=0.1),
        ln_eps=1e-06,
        head_width=16,
    ),
    img_size=(256, 320),
)
widths = [32, 64, 128, 256]
