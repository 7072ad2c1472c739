"""The static page of the model zoo: one HTML file without external resources."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybrid_mm.run.published import published_weights
from hybrid_mm.zoo.metafile import GROUPS, MAIN_METRICS, Tree, source_type


def page(trees: Sequence[Tree]) -> str:
    """HTML of the page."""
    heads = sorted({model.head for tree in trees for model in tree.models})
    groups = [g for g in GROUPS if any(m.group == g for tree in trees for m in tree.models)]
    papers, models = [], []
    for number, tree in enumerate(trees):
        about = tree.collection
        papers.append(
            dict(
                key=tree.folder.name,
                name=about['Name'],
                folder=f'configs/{tree.folder.name}',
                title=tree.paper[0] if tree.paper else '',
                url=tree.paper[1] if tree.paper else '',
            )
        )
        for model in tree.models:
            results = []
            for source, found in model.metrics().items():
                shown = {name: found[name] for name in MAIN_METRICS if name in found}
                if shown:
                    results.append([source, source_type(source), shown])
            place = [number, groups.index(model.group), heads.index(model.head)]
            cost = [model.parameters, model.flops, *model.size]
            models.append([model.name, *place, *cost, results])
    data: dict[str, Any] = dict(
        tasks=[dict(key=group.key, title=group.title) for group in groups],
        papers=papers,
        heads=heads,
        metrics=MAIN_METRICS,
        models=models,
    )
    known = {model.name: published_weights(model.name) for tree in trees for model in tree.models}
    data['weights'] = {
        name: [weights.case, next((a for f in weights.files for a in (*f.urls, f.page) if a), '')]
        for name, weights in known.items()
        if weights is not None and weights.files
    }
    text = json.dumps(data, ensure_ascii=False, separators=(',', ':'))
    template = (Path(__file__).parent / 'page.html').read_text()
    return template.replace('{{data}}', text.replace('<', '\\u003c').replace('],[', '],\n['))
