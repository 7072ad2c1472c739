"""Draw the confusion matrix of predictions that tools/test.py --out wrote.

python tools/analysis/confusion_matrix.py CONFIG predictions.pkl FOLDER       # detection
python tools/analysis/confusion_matrix.py CONFIG label_maps/ FOLDER           # segmentation
python tools/analysis/confusion_matrix.py CONFIG predictions.pkl FOLDER       # classification

Other flags are those of confusion_matrix.py of MMDetection, MMSegmentation or MMPretrain.
"""

import os
import sys

from hybrid_mm.errors import UserError
from hybrid_mm.run import options
from hybrid_mm.run.config import TASKS, load_config, require, task_of, with_options
from hybrid_mm.run.outputs import check_output_folder
from hybrid_mm.run.predictions import SUFFIXES
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
    """Run the script of the config's library, which draws confusion_matrix.png."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('predictions', help='file or folder that tools/test.py --out wrote')
    parser.add_argument('out', help='folder of the picture confusion_matrix.png')
    options.add_config_options(parser)
    args, others = parser.parse_known_args(argv)

    from hybrid_mm.run.checks.data import check_data
    from hybrid_mm.run.upstream import run_upstream

    cfg = load_config(args.config, args.cfg_options)
    if not os.path.exists(args.predictions):
        raise UserError(f'{args.predictions} does not exist; tools/test.py --out writes it')
    require(cfg, 'test_dataloader.dataset')
    task = task_of(cfg)
    if os.path.isdir(args.predictions) != (task == 'segmentation'):
        expected = 'a folder of label maps' if task == 'segmentation' else 'a pickle'
        raise UserError(f'{args.predictions}: expected {expected}, which tools/test.py --out wrote')
    if task != 'segmentation' and not args.predictions.endswith(SUFFIXES):
        raise UserError(f'{args.predictions}: expected a name that ends with .pkl or .pickle')
    check_output_folder(args.out, 'out')
    check_data(cfg, 'test_dataloader')
    if task == 'classification':
        os.makedirs(args.out, exist_ok=True)
        picture = os.path.join(args.out, 'confusion_matrix.png')
        places = [args.predictions, '--show-path', picture]
    else:
        places = [args.predictions, args.out]
    script = 'analysis_tools/confusion_matrix.py'
    scripts = dict.fromkeys(TASKS, script)
    try:
        run_upstream(cfg, scripts, with_options(cfg, [*places, *others], args.cfg_options))
    except (AssertionError, AttributeError, KeyError, IndexError, TypeError, OSError) as error:
        reason = f'{type(error).__name__}: {error}'.rstrip(': ')
        raise UserError(
            f'{args.predictions} cannot be used ({reason}); is it of the test data set of '
            f'{args.config}?'
        ) from error
    print(f'\n{args.out}/confusion_matrix.png')


if __name__ == '__main__':
    sys.exit(main())
