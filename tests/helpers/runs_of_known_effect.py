"""Rows of the ablation, made of values that a test knows."""

from bnc_repro.evidence import judgement
from bnc_repro.recipe.parameters import PLACEMENTS


def ablation(values, headline="top1", rates=None):
    """Rows of arm -> list of values, a seed each; None is a diverged run. An arm is called ESTIMATOR, -PLACEMENT,
    -OPTIMIZER and -reactnet, as far as they matter. rates: arm -> its learning rate, 0.01 unless said."""

    def declared(arm):
        estimator, *condition = arm.split("-")
        place = next((part for part in condition if part in PLACEMENTS), "weights")
        optimizer = next((part for part in condition if part in judgement.OPTIMIZERS), "adam")
        return {
            "arm": arm,
            "estimator": estimator,
            "placement": place,
            "recipe": {
                "optimizer": optimizer,
                "learning_rate": (rates or {}).get(arm, 0.01),
                "block": "reactnet" if "reactnet" in condition else "bireal",
                "weight_binarizer": estimator.split()[0],
            },
        }

    return [
        {
            **declared(arm),
            "seed": seed,
            "status": "finished" if value is not None else "diverged",
            "headline": headline,
            "metrics": {} if value is None else {headline: value},
            "best": value,
            "parameters": 1,
            "curve": [],
            "seconds": 10.0 + len(arm),
            "cpu_seconds": 10.0 + len(arm),
        }
        for arm, own in values.items()
        for seed, value in enumerate(own)
    ]
