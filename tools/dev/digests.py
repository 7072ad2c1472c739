"""Write the digests of configs, networks and signatures that the tests compare.

Example:
    python tools/dev/digests.py                 all that differ
    python tools/dev/digests.py van VAN         those of a tree, of a network
    python tools/dev/digests.py networks        one group: configs, networks or signatures
    python tools/dev/digests.py --check         show the differences, write nothing
"""

import sys
import warnings
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool

ROOT = Path(__file__).resolve().parents[2]


@tool
def main(argv: list[str] | None = None) -> int:
    """Write or compare digests; exit status 1 if ``--check`` finds differences."""
    parser = options.parser(__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='tree, class, package or group')
    parser.add_argument('--check', action='store_true', help='compare, write nothing')
    args = parser.parse_args(argv)

    sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
    warnings.simplefilter('ignore')  # of torch, about initialisation
    from digests import kinds, stored

    known = kinds.names()
    chosen = [n for n in known if not args.names or {n, *n.split('/')} & set(args.names)]
    for name in args.names:
        if not any(name in (n, *n.split('/')) for n in known):
            parser.error(f'no digest {name!r}; there are {", ".join(known)}')
    differ = False
    for name in chosen:
        found = kinds.compute(name)
        message = stored.report(name, found)
        differ |= bool(message)
        if message and args.check:
            print(message)
        elif message:
            stored.write(name, found, kinds.title(name))
            print(f'wrote tests/digests/{name}.txt')
    if not args.names:
        for name in sorted(stored.names() - set(known)):
            differ = True
            print(f'tests/digests/{name}.txt belongs to nothing')
            if not args.check:
                stored.path_of(name).unlink()
    return int(differ and args.check)


if __name__ == '__main__':
    sys.exit(main())
