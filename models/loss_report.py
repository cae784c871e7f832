"""The document and the plot of the study of losses, from the results that :mod:`models.loss_study` left."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from models.data.readers import STEMS
from models.losses import get_loss, list_losses

# Learning rates of the study's own scripts (run_experiments.sh), where not 1e-3.
_UPSTREAM_RATES = {"l2_mask": 1e-4, "l2_time": 1e-5, "l1_time": 1e-5}
_ADDED = ("adversarial", "deep_feature")


def _mean(scores: dict[str, float]) -> float:
    return float(np.mean([scores[stem] for stem in STEMS]))


def _rate(value: float) -> str:
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def read_results(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the plan and the results of a run's folder, best first.

    Raises
    ------
    FileNotFoundError
        There are none.
    """
    plan, paths = folder / "plan.json", sorted(folder.glob("result-*.json"))
    if not plan.exists() or not paths:
        raise FileNotFoundError(
            f"{folder} has no results; make some with: python -m models.loss_study --minutes-per-loss 1.5 -o FILE.md"
        )
    results = [json.loads(path.read_text()) for path in paths]
    known = [r for r in results if r["loss"] in list_losses()]
    return json.loads(plan.read_text()), sorted(known, key=lambda r: -_mean(r["sdr_shared"]))


def write_report(folder: Path, output: Path) -> None:
    """Write ``output`` (Markdown) and a PNG of the same name beside it."""
    plan, everything = read_results(folder)
    seed = plan["facts"]["study"]["seed"]
    results = [r for r in everything if r["seed"] == seed]
    plot = output.with_suffix(".png")
    _draw(results, plan["limits"], plot)
    parts = [
        _introduction(plan),
        _table([r for r in results if not r["loss"].endswith("_upstream")], plan["limits"]),
        f"![SDR of every loss]({plot.name})\n",
        _findings(results, everything, seed),
        _upstream_table(results),
        _reference(),
    ]
    output.write_text("\n".join(part for part in parts if part))


def _introduction(plan: dict[str, Any]) -> str:
    facts = plan["facts"]
    study, model, remix = facts["study"], facts["model"], facts["remix"]
    return f"""# Loss functions

Every loss of "On loss functions and evaluation metrics for music source separation" (Gusó et al., ICASSP 2022,
arXiv:2202.07968), the two that its code names without having them (`adversarial`, `deep_feature`), and the forms of
its code that have defects (`*_upstream`) can be called by name: `models.losses.get_loss("si_sdr_time")`.

This page is written by `python -m models.loss_study` from measurements.

## How it was measured

One small causal model, trained anew with every loss: the same initial weights, the same batches in the same order,
{plan["steps"]} steps each. Only the loss differs and, where it demands one, the head: masks from a ReLU as in the
study's code, from a softmax for `cross_entropy`, from a sigmoid for `binary_cross_entropy`. All heads give masks of 1/4
for outputs of zero.

| | |
|---|---|
| model | {facts["parameters"]:,} parameters; window {model["window"]}, hop {model["hop"]}, \
{model["layers"]} GRU layers of {model["hidden"]}; mono |
| data | {study["segments"]} segments of {remix["seconds"]} s ({facts["minutes"]} min), remixed once from the \
training songs of `{study["data"]}` |
| batch | {study["batch"]} segments; the first {study["warm_up_seconds"]} s of each do not count |
| optimizer | Adam, linear warm-up, cosine to a hundredth; rates in the table |
| scored on | the {facts["validation_songs"]} songs that MUSDB18 sets aside for validation, mono |
| machine | {facts["machine"]}; times are of the processor, not of the wall |

SDR is the median over songs of the median over seconds (`models.metrics.frame_sdr`), per stem, in dB. **shared** is
the same after dividing the masks by their sum: live stems have to add up to the mixture, and losses that leave the
scale free (`si_sdr_*`) only then have one. SI-SDR is of whole clips, of the masks as they are. It is a comparison of
losses at a small budget, not of models: the shipped ones are larger and are trained for much longer.
"""


def _table(results: list[dict[str, Any]], limits: dict[str, Any]) -> str:
    head = [
        "## Results\n",
        "Ordered by the mean of the shared SDR. In brackets: the rate of the study's code where it is another.\n",
        "| loss | domain | rate | " + " | ".join(STEMS) + " | SDR mean | **shared mean** | SI-SDR mean | ms per step |",
        "|---|---|---|" + "---|" * (len(STEMS) + 4),
    ]
    rows = []
    for r in results:
        rate = _rate(r["learning_rate"])
        if r["loss"] not in _ADDED and (theirs := _UPSTREAM_RATES.get(r["loss"], 1e-3)) != r["learning_rate"]:
            rate += f" ({_rate(theirs)})"
        stems = " | ".join(f"{r['sdr_shared'][stem]:.2f}" for stem in STEMS)
        rows.append(
            f"| `{r['loss']}` | {r['domain']} | {rate} | {stems} | {_mean(r['sdr']):.2f} | "
            f"**{_mean(r['sdr_shared']):.2f}** | {_mean(r['si_sdr']):.2f} | {r['ms_per_step']:.0f} |"
        )
    names = {"ideal": "ideal ratio masks", "mixture": "the mixture itself"}
    for kind, name in names.items():
        stems = " | ".join(f"{limits[kind]['sdr'][stem]:.2f}" for stem in STEMS)
        mean, si_sdr = _mean(limits[kind]["sdr"]), _mean(limits[kind]["si_sdr"])
        rows.append(f"| *{name}* | | | {stems} | {mean:.2f} | {mean:.2f} | {si_sdr:.2f} | |")
    return "\n".join([*head, *rows, "", "Per stem: shared SDR.", ""])


def _findings(results: list[dict[str, Any]], everything: list[dict[str, Any]], seed: int) -> str:
    lines = ["## What it shows\n"]
    repeated = next((r["loss"] for r in everything if r["seed"] != seed), None)
    if repeated:
        values = sorted(_mean(r["sdr_shared"]) for r in everything if r["loss"] == repeated)
        lines.append(
            f"* Chance: `{repeated}` with {len(values)} seeds (weights and order of the batches) gives "
            f"{', '.join(f'{v:.2f}' for v in values)} dB. Losses that lie closer together than "
            f"{values[-1] - values[0]:.2f} dB are not told apart here."
        )
    for label, key in (("shared SDR", "sdr_shared"), ("SDR", "sdr"), ("SI-SDR", "si_sdr")):
        order = sorted(results, key=lambda r: -_mean(r[key]))
        best = ", ".join(f"`{r['loss']}` {_mean(r[key]):.2f}" for r in order[:3])
        worst = ", ".join(f"`{r['loss']}` {_mean(r[key]):.2f}" for r in order[-2:])
        lines.append(f"* Highest {label}: {best} dB; lowest: {worst} dB.")
    domains = {
        d: max(_mean(r["sdr_shared"]) for r in results if r["domain"] == d) for d in {r["domain"] for r in results}
    }
    ranked = ", ".join(f"{d} {v:.2f}" for d, v in sorted(domains.items(), key=lambda item: -item[1]))
    lines.append(f"* The best of each domain, shared SDR: {ranked} dB.")
    for r in results:
        if r["left_out_steps"]:
            lines.append(
                f"* `{r['loss']}`: {r['left_out_steps']} of {r['steps']} steps had a loss or gradient that is not "
                "a number and were left out."
            )
    return "\n".join([*lines, ""])


def _upstream_table(results: list[dict[str, Any]]) -> str:
    by_name = {r["loss"]: r for r in results}
    rows = []
    for name, theirs in sorted(by_name.items()):
        ours = by_name.get(name.removesuffix("_upstream"))
        if name.endswith("_upstream") and ours:
            figures = " | ".join(
                f"{_mean(ours[key]):.2f} | {_mean(theirs[key]):.2f}" for key in ("sdr", "sdr_shared", "si_sdr")
            )
            rows.append(f"| `{ours['loss']}` | {figures} | {theirs['left_out_steps']} |")
    if not rows:
        return ""
    head = [
        "## Corrected against upstream's form\n",
        "Means over the stems, dB. The last column counts steps of upstream's form without a finite gradient.\n",
        "| loss | SDR | upstream | shared | upstream | SI-SDR | upstream | left out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _reference() -> str:
    """The first line of every loss's own documentation."""
    lines = ["## The losses\n", "| name | what it is |", "|---|---|"]
    for name in list_losses():
        first = " ".join(inspect.getdoc(get_loss(name)).split("\n\n")[0].split())
        lines.append(f"| `{name}` | {first.replace('``', '`').replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def _draw(results: list[dict[str, Any]], limits: dict[str, Any], path: Path) -> None:
    colours = {"mask": "tab:green", "frequency": "tab:blue", "time": "tab:orange", "learned": "tab:purple"}
    figure, axis = plt.subplots(figsize=(8.5, 0.27 * len(results) + 1.3), layout="constrained")
    for row, r in enumerate(reversed(results)):
        faded = 0.45 if r["loss"].endswith("_upstream") else 1.0
        axis.barh(row, _mean(r["sdr_shared"]), color=colours[r["domain"]], alpha=faded)
        axis.plot(_mean(r["sdr"]), row, "k|", markersize=8)
    axis.set_yticks(range(len(results)), [r["loss"] for r in reversed(results)], fontsize=8)
    lowest = min(_mean(r[key]) for r in results for key in ("sdr", "sdr_shared"))
    axis.set_xlim(left=max(_mean(limits["mixture"]["sdr"]), min(0.0, lowest - 0.3)))
    axis.set(xlabel="mean SDR over the stems, dB: shared masks (bars), masks as they are (marks)")
    used = [domain for domain in colours if any(r["domain"] == domain for r in results)]
    axis.legend([plt.Rectangle((0, 0), 1, 1, color=colours[d]) for d in used], used, loc="best", fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=90)
    plt.close(figure)
