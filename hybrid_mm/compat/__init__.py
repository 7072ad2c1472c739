"""Workarounds for known breakages of the OpenMMLab stack, and a diagnosis of an environment.

The same modules (``mmengine``, ``mmcv``, ``mmdet``, ``mmseg``, ``mmpretrain``) come from two
providers, the original OpenMMLab releases and the OneDL builds, so checks here inspect modules and
their files, never distribution names alone. Breakages are numbered B1 to B17: ``after_import``
applies the workarounds that need no action of the user, and ``diagnosis`` reports the others.

Modules import only the standard library at the top: they must work where torch does not
(``torch_api``, which is about torch alone, imports only that). Nothing is imported here, as
``import hybrid_mm`` begins with this folder and takes no time.
"""
