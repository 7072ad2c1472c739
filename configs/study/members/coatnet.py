# MBConv, then attention over the whole map.
backbone = dict(
    type='hybrid_mm.CoAtNet',
    arch=dict(
        depths=(1, 2, 4, 2),
        channels=(40, 80, 160, 320),
        kinds=('C', 'C', 'T', 'T'),
        stem=dict(channels=(40, 40), bias=False),
        conv=dict(act='gelu', padding='symmetric'),
        attention=dict(),
        norm=dict(eps=1e-05, momentum=0.1),
        ln_eps=1e-06,
        head_width=16,
    ),
    img_size=(256, 320),
)
widths = [40, 80, 160, 320]
