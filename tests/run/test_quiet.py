"""What a run shows on its terminal, and what goes into its log file only."""

import argparse
import logging
import sys
import warnings

import pytest
from mmengine.logging import MMLogger

from hybrid_mm.run import quiet


@pytest.fixture
def run(tmp_path, capsys):
    """Do something in a run: a function of its logger; return the terminal and the log file."""

    def do(function, *flags, level='INFO'):
        args = argparse.Namespace(verbose='--verbose' in flags, argv=list(flags))
        MMLogger._instance_dict.clear()
        capsys.readouterr()
        early = MMLogger.get_current_instance()
        with quiet.terminal(args):
            says(early, 'mmengine.config.config', 'early detail')
            log = tmp_path / 'run.log'
            log.unlink(missing_ok=True)
            logger = MMLogger.get_instance('run', log_file=str(log), log_level=level)
            function(logger)
        for handler in logger.handlers:
            handler.flush()
        MMLogger._instance_dict.clear()
        captured = capsys.readouterr()
        return captured.out + captured.err, log.read_text()

    yield do
    MMLogger._instance_dict.clear()


def says(logger, module, text, level=logging.INFO):
    """Log as a module does."""
    exec('logger.log(level, text)', dict(__name__=module, logger=logger, level=level, text=text))


def prints(module, text):
    exec('print(text)', dict(__name__=module, text=text))


def warns(filename, text, category=UserWarning):
    warnings.warn_explicit(text, category, filename, 1)


SHOWN = [
    ('mmengine.hooks.logger_hook', 'Iter(train) [50/100]  lr: 1e-3  loss: 0.5', logging.INFO),
    ('mmengine.hooks.logger_hook', 'Epoch(val) [1][4/4]  coco/bbox_mAP: 0.1', logging.INFO),
    ('mmengine.hooks.checkpoint_hook', 'Saving checkpoint at 2 epochs', logging.INFO),
    ('mmengine.hooks.checkpoint_hook', 'The best checkpoint with 0.3 mIoU is', logging.INFO),
    ('somebody.hooks', 'text of a user', logging.INFO),
    ('mmyolo.engine', 'another package', logging.INFO),
    ('hybrid_mm.data.checked', 'ours', logging.INFO),
    ('mmengine.runner.runner', 'a warning that nobody has listed', logging.WARNING),
    ('mmdet.models.x', 'an error', logging.ERROR),
    ('hybrid_mm.run.x', 'The prefix is not set in metric class, say we', logging.WARNING),
]
HIDDEN = [
    ('mmengine.runner.runner', 'Hooks will be executed in the following order', logging.INFO),
    ('mmengine.optim.optimizer.default_constructor', 'paramwise_options -- x', logging.INFO),
    ('mmengine.hooks.logger_hook', 'Exp name: x', logging.INFO),
    ('mmdet.evaluation.metrics.coco_metric', 'bbox_mAP_copypaste: 0.1', logging.INFO),
    ('hybrid_mm.run.total_batch', 'total batch: 2 = 2 images', logging.INFO),
    ('mmengine.evaluator.metric', 'The prefix is not set in metric class X.', logging.WARNING),
    ('mmengine.fileio.file_client', '"FileClient" will be deprecated', logging.WARNING),
    ('importlib', 'pkg_resources is deprecated as an API', logging.WARNING),
]


def test_messages(run):
    def all_of_them(logger):
        for each in (*SHOWN, *HIDDEN):
            says(logger, *each)

    shown, log = run(all_of_them)
    assert [text for _, text, _ in SHOWN if text not in shown] == []
    assert [text for _, text, _ in HIDDEN if text in shown] == []
    assert [text for _, text, _ in (*SHOWN, *HIDDEN) if log.count(text) != 1] == []
    assert 'early detail' in log and 'early detail' not in shown


@pytest.mark.parametrize('flag', ['--verbose', '--debug'])
def test_all_is_shown_if_it_is_asked_for(run, flag):
    def all_of_them(logger):
        for each in (*SHOWN, *HIDDEN):
            says(logger, *each)
        prints('mmdet.datasets', 'Could not import OneDL.')
        warns('/x/mmseg/engine/hooks/visualization_hook.py', 'The draw is False, it means')

    with pytest.warns(UserWarning, match='The draw is False'):
        shown, _ = run(all_of_them, flag)
    texts = [text for _, text, _ in (*SHOWN, *HIDDEN)]
    for text in (*texts, 'early detail', 'Could not import OneDL'):
        assert text in shown


def test_a_level_of_debug_shows_all_and_one_of_warning_no_more_than_that(run):
    def log(logger):
        says(logger, 'mmengine.runner.runner', 'a detail')
        says(logger, 'mmengine.runner.runner', 'a warning', logging.WARNING)

    assert 'a detail' in run(log, level='DEBUG')[0]
    shown, file = run(log, level='WARNING')
    assert 'a detail' not in shown + file and 'a warning' in shown and 'a warning' in file


def test_what_is_printed(run):
    before = sys.stdout

    def printing(logger):
        prints('mmseg.datasets', 'Could not import OneDL')
        prints('pycocotools.coco', 'loading annotations into memory...')
        prints('pycocotools.cocoeval', ' Average Precision  (AP) @[ IoU=0.50 ] = 0.1')
        prints('pycocotools.coco', 'something new')
        prints('somebody.hooks', 'loading annotations into memory, say I')
        print('and I')

    shown, log = run(printing)
    assert shown == 'something new\nloading annotations into memory, say I\nand I\n'
    for text in ('Could not import OneDL', 'into memory...', 'Average Precision'):
        assert text in log
    assert sys.stdout is before


def test_weights_that_do_not_fit(run):
    """Said in one line by our hooks, where MMEngine's runner loads them; else by MMEngine."""
    text = 'The model and loaded state dict do not match exactly'

    def printing(logger):
        names = dict(__name__='mmengine.runner.checkpoint', text=text)
        exec('def load_state_dict(whose):\n    print(text + whose)', names)
        for module, function in (
            ('mmengine.runner.runner', 'load_checkpoint'),
            ('mmdet.models.detectors.kd_one_stage', '__init__'),
        ):
            caller = dict(__name__=module, load=names['load_state_dict'])
            exec(f'def {function}():\n    load({module!r})\n{function}()', caller)

    shown, log = run(printing)
    assert shown == f'{text}mmdet.models.detectors.kd_one_stage\n'
    assert text in log


WARNINGS = [
    ('/x/mmseg/datasets/transforms/loading.py', '`reduce_zero_label` will be deprecated, if'),
    ('/x/mmseg/models/losses/cross_entropy_loss.py', 'Default ``avg_non_ignore`` is False, if'),
    ('/x/mmseg/models/builder.py', '``build_loss`` would be deprecated soon, please use'),
    ('/x/mmdet/models/x.py', 'To copy construct from a tensor, it is recommended to use'),
    ('/x/torch/utils/data/dataloader.py', 'This DataLoader will create 4 worker processes'),
    ('/x/torch/functional.py', 'torch.meshgrid: in an upcoming release'),
    ('/x/torch/_utils.py', 'TypedStorage is deprecated. It will be removed in the future'),
    ('/x/torch/utils/cpp_extension.py', 'pkg_resources is deprecated as an API. See'),
    ('/x/mmdet/models/y.py', '`torch.cuda.amp.autocast(args...)` is deprecated. Please use'),
]


def test_warnings(run):
    def warning(logger):
        for filename, text in WARNINGS:
            warns(filename, text)
            warns('/x/somebody/code.py', f'{text} elsewhere')
            warns(filename, f'unknown {text}')
            warns('/x/hybrid_mm/run/launch.py', f'{text} by us')

    with pytest.warns(UserWarning) as caught:  # what is left to the usual way
        before = warnings.showwarning
        _, log = run(warning)
        assert warnings.showwarning is before
    texts = [str(each.message) for each in caught]
    for _, text in WARNINGS:
        assert text not in texts and text in log
        assert {f'{text} elsewhere', f'unknown {text}', f'{text} by us'} <= set(texts)


def table(count):
    names = [f'| class{i} | {i}.5 | nan |' for i in range(count)] + ['|  none  | nan |  nan |']
    return '\n'.join(
        ['', '+--+--+--+', '| Class | IoU | Acc |', '+--+--+--+', *names, '+--+--+--+']
    )


def test_a_long_table_of_classes_is_cut_down_to_its_ends(run):
    module = 'mmseg.evaluation.metrics.iou_metric'
    shown, log = run(lambda logger: says(logger, module, table(40)))
    assert table(40) in log and 'class20' not in shown and len(shown.splitlines()) == 1
    assert 'IoU of 41 classes (table in the log file): highest class39 39.5, ' in shown
    assert shown.rstrip().endswith('lowest class0 0.5, class1 1.5, class2 2.5')
    shown, log = run(lambda logger: says(logger, module, table(4)))
    assert table(4) in shown and table(4) in log


def test_metrics_of_many_classes_are_left_out(run):
    module = 'mmengine.hooks.logger_hook'
    line = 'Epoch(val) [1][4/4]  ' + ''.join(f'coco/c{i}_precision: 0.1  ' for i in range(80))
    line += 'coco/bbox_mAP: 0.3'
    shown, log = run(lambda logger: says(logger, module, line))
    assert shown.endswith('[1][4/4]  coco/bbox_mAP: 0.3  (80 classes in the log file)\n')
    assert line in log
    many = 'Iter(val) [4/4]  recall_classwise: [' + ', '.join(['1.5'] * 1000) + ']  time: 1'
    assert quiet.without_classes(many) == (
        'Iter(val) [4/4]  recall_classwise: [in the log file]  time: 1'
    )
    few = 'Iter(val) [4/4]  coco/a_precision: 0.1  recall_classwise: [1.5, 2.5]'
    assert quiet.without_classes(few) == few


def test_every_rule_says_why():
    rules = (*quiet.PROGRESS, *quiet.SUMMED_UP, *quiet.NOISE, *quiet.PRINTED)
    assert all(rule.why for rule in rules)
    assert not any(rule.fits('hybrid_mm.run.launch', '') for rule in (*quiet.NOISE, *quiet.PRINTED))


def test_tools_keep_details_off_the_terminal(capsys):
    @quiet.quietly
    def run(args, text, *, times=1):
        """Say something."""
        says_from = {'__name__': 'mmseg.datasets'}
        exec('print(text)\n' * times, dict(says_from, text=text))
        print('ours')
        return times

    assert run(argparse.Namespace(argv=[]), 'Could not import OneDL', times=2) == 2
    assert capsys.readouterr().out == 'ours\n'
    run(argparse.Namespace(argv=['--debug']), 'Could not import OneDL')
    assert capsys.readouterr().out == 'Could not import OneDL\nours\n'
    assert run.__doc__ == 'Say something.'
