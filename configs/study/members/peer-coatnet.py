# timm's CoAtNet.
backbone = dict(
    type='hybrid_mm.StudyMaxxVit',
    base='coatnet_0',
    img_size=(256, 320),
    dim_head=16,
    embed_dim=(40, 80, 160, 320),
    depths=(1, 2, 4, 2),
    stem_width=40,
)
widths = [40, 80, 160, 320]
peer_of = 'coatnet'
package = 'timm'
