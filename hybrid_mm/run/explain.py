"""The one-line form of what a wrong config or a small machine raises."""

import errno
import re
import traceback

from hybrid_mm.compat.shared_memory import explain_workers
from hybrid_mm.errors import nearest, plain_text
from hybrid_mm.run.registered import arguments, nearest_type

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_OF_CONFIGS = (TypeError, ValueError, KeyError, AssertionError, FileNotFoundError)

_OPENMMLAB = {'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg'}
_OF_THE_STACK = {*_OPENMMLAB, 'cv2', 'numpy', 'rich', 'torch', 'torchvision', 'yaml'}

_INHERITED = (
    '. If it comes from the base config, add _delete_=True to the dict with the new type: without '
    'it the dict is merged with that of the base'
)


def explain(error: BaseException) -> str | None:
    """One line for an exception that a config causes; None for others, which keep their traceback.

    Those are the exceptions of a backbone's ``load_pretrained``, those that pass MMEngine's
    ``build_from_cfg`` (a wrong ``type`` or wrong arguments; the innermost part is named), those of
    data loaders whose workers die or have too little memory, of files that the system refuses, and
    of packages of the stack that are missing.
    """
    known = _of_workers(error) or _of_packages(error)
    if known is not None:
        return known
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(frame.f_code.co_name in ('load_pretrained', 'check_init_cfg') for frame in frames):
        return plain_text(error)  # a backbone that refuses its init_cfg.checkpoint
    builds = [frame for frame in frames if frame.f_code.co_name == 'build_from_cfg']
    if not builds or not isinstance(error, _OF_CONFIGS):
        return _of_files(error)
    build, message = builds[-1], plain_text(error)
    unknown = re.match(r'(\S+) is not in the (\S+)::(.+) registry', message)
    if unknown:
        name, _, sort = unknown.groups()
        hint = nearest_type(build.f_locals['registry'], name)
        return f'type {name!r} is not a registered {sort}{hint}'
    cls = build.f_locals.get('obj_cls')
    if cls is None:
        return message
    name = getattr(cls, '__name__', str(cls))
    keyword = re.search(r"unexpected keyword argument '(\w+)'", message)
    if keyword:
        hint = nearest(keyword[1], arguments(cls))
        return f'{name} has no argument {keyword[1]!r}{hint or _INHERITED}'
    return f'cannot build {name}: {message}'


def _of_packages(error: BaseException) -> str | None:
    """What to install for a package of the stack, which is optional for pip."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    if error.name == 'mmcv._ext':
        return (
            'mmcv was installed without its operators, as pip builds it where it sees no torch; '
            'docs/installation.md tells how to install one with them'
        )
    if error.name in _OF_THE_STACK:
        return (
            f'{error.name} is not installed; it comes with the OpenMMLab packages, as in '
            'pip install "hybrid-mm[onedl]"; docs/installation.md tells more'
        )
    return None


def _of_workers(error: BaseException) -> str | None:
    """What became of a worker of a data loader.

    torch raises it wherever the main process is, which may turn it into an error of its own, as
    MMEngine 0.10 does while it formats a config: its workers start before.
    """
    cause: BaseException | None = error
    while cause is not None:
        found = explain_workers(cause)
        if found is not None:
            return found
        cause = cause.__context__
    return None


def _of_files(error: BaseException) -> str | None:
    """What the system says of a file that it refuses, or of a full disk."""
    if not isinstance(error, OSError):
        return None
    if error.filename is not None:
        return f'{error.filename}: {error.strerror or error}'
    return error.strerror if error.errno in _OF_DISKS else None
