"""The report: one self-contained HTML file that opens offline, with the figures and an x̂₀ player."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np

from xhat.analysis.demo import MEASURES, DemoResult, filmstrips, interval_text
from xhat.figures import curves, filmstrip, samples
from xhat.figures.style import LABELS, save
from xhat.probes.features import decode

CAPTIONS = {
    "samples": ("Samples", "The same seeds in every row: a row a model, a column a seed."),
    "diversity": (
        "Diversity of x̂₀ across seeds, by noise level",
        "Mean over prompts with a 95 % bootstrap interval over prompts. Noise falls from left to right.",
    ),
    "commitment": (
        "Commitment",
        "How near x̂₀ is, at each step, to the run's own final picture: cosine similarity of latents.",
    ),
    "filmstrip": ("The picture in mind", "x̂₀ at each step for one prompt and seed."),
}


def draw_figures(result: DemoResult, vae: Any, folder: Path) -> dict[str, Path]:
    """Write every figure of a demo run as PDF and PNG; returns name → PNG."""
    shown = [0, min(2, len(result.prompts) - 1)]
    images = {name: tree.to_dataset()["images"].values for name, tree in result.traces.items()}
    drawn = {
        "samples": samples.draw({n: im[shown] for n, im in images.items()}, [result.prompts[i] for i in shown]),
        "diversity": curves.draw(result.diversity, MEASURES),
        "commitment": curves.draw(result.commitment, {"cosine": "cosine of x̂₀ to the final picture"}),
        "filmstrip": filmstrip.draw(filmstrips(result, vae), result.prompts[0]),
    }
    return {name: save(figure, folder / name)[1] for name, figure in drawn.items()}


def write_report(result: DemoResult, vae: Any, pngs: dict[str, Path], path: Path) -> None:
    """Write ``report.html``."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("xhat.figures"), autoescape=select_autoescape(["html", "j2"]))
    figures = [
        {"title": title, "caption": caption, "alt": f"{title}. {caption}", "png": _base64(pngs[name].read_bytes())}
        for name, (title, caption) in CAPTIONS.items()
    ]
    text = environment.get_template("report.html.j2").render(
        title="Where the student's seeds collapse, and how to undo it",
        summary=f"A base model, its few-step student and their hybrid (the base makes the first step) were traced on "
        f"{len(result.prompts)} prompts × {result.seeds} seeds each.",
        findings=findings(result),
        head=["model", *MEASURES.values(), "fidelity", "evaluations", "seconds an image"],
        rows=[
            [LABELS.get(r.model, r.model), *(interval_text(getattr(r, m)) for m in MEASURES), f"{r.fidelity:.2f}",
             f"{r.evaluations:.0f}", f"{r.seconds:.3f}"]
            for r in result.rows
        ],
        samples=[f"{p}, seed {s}" for p in result.prompts[:4] for s in range(2)],
        player=player_data(result, vae),
        figures=figures,
        setting=f"Prompts: {', '.join(result.prompts)}. Measures are taken in the embedding of the family's judge, and "
        "intervals are bootstraps over prompts.",
    )  # fmt: skip
    path.write_text(text)


def findings(result: DemoResult) -> list[str]:
    """The differences in sentences, each with its interval and with what it says."""
    lines = []
    for pair, measures in result.differences.items():
        b, a = pair.split(" − ")
        for name, (mean, low, high) in measures.items():
            way = "above" if low > 0 else "below" if high < 0 else "not distinguishable from"
            lines.append(
                f"{MEASURES[name]}: the {b} is {way} the {a} ({mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})."
            )
    return lines


def player_data(result: DemoResult, vae: Any) -> dict[str, Any]:
    """Frames of the x̂₀ player: four prompts × two seeds, every step of every model, as small WebP pictures."""
    models = []
    for name, tree in result.traces.items():
        x0 = tree.to_dataset()["pred_x0"]
        frames = [
            [_webp(im) for im in decode(vae, x0.isel(prompt=p, seed=s).values)]
            for p in range(min(4, len(result.prompts))) for s in range(2)
        ]  # fmt: skip
        logs = np.log(np.maximum(x0["sigma"].values, 1e-3)).round(4).tolist()
        models.append({"name": LABELS.get(name, name), "log_sigma": logs, "frames": frames})
    every = [v for m in models for v in m["log_sigma"]]
    return {"models": models, "log_sigma": [min(every), max(every)]}


def _webp(image: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((image.transpose(1, 2, 0) * 255).round().astype("uint8")).save(buffer, "WEBP", quality=85)
    return _base64(buffer.getvalue())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
