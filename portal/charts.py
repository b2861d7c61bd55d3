"""Charts as pictures: SVG inside data URIs, so that a page needs no script and no inline style for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pygal
from pygal.style import Style

INK: Final = "#7d879b"  # legible on white and on near-black: a picture doesn't know which page it is on
ARMS: Final = {"student": "#2f9e74", "teacher": "#6478d3", "fallback": "#d59a2f", "control": "#a678c8"}
GOOD, CALM, BAD = "#2f9e74", "#6478d3", "#d4555f"
WIDE: Final = (1060, 300)
HALF: Final = (560, 320)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Calls of one stretch of time by arm."""

    label: str
    by_arm: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Look:
    """What was known of the risk after so many audits: the share that differed, and its confidence sequence."""

    audits: int
    differing: float
    low: float
    high: float


def draw_calls(buckets: Sequence[Bucket]) -> str:
    """Calls over time, stacked by arm."""
    chart = pygal.StackedBar(**_config(list(ARMS.values()), WIDE, stroke=0.4))
    chart.x_labels = [bucket.label for bucket in buckets]
    chart.x_labels_major = chart.x_labels[:: max(1, len(buckets) // 6)]
    chart.show_minor_x_labels = False
    for arm in ARMS:
        chart.add(arm, [bucket.by_arm.get(arm, 0) for bucket in buckets])
    return _uri(chart)


def draw_curve(points: Sequence[Mapping[str, Any]], *, alpha: float, rows: int) -> str:
    """The bound on the risk, and the share of calls accepted, by threshold."""
    shown = sorted(points, key=lambda point: float(point["threshold"]))
    ends = [float(shown[0]["threshold"]), float(shown[-1]["threshold"])]
    chart = pygal.XY(**_config([BAD, CALM, INK], HALF), dots_size=2.5, range=(0, 1))
    chart.x_title = "threshold"
    chart.value_formatter = _percent
    chart.add("risk bound", [(point["threshold"], point["upper_bound"]) for point in shown])
    chart.add("accepted", [(point["threshold"], point["accepted"] / max(rows, 1)) for point in shown])
    chart.add("α", [(end, alpha) for end in ends], show_dots=False, stroke_style={"dasharray": "6, 4"})
    return _uri(chart)


def draw_risk(looks: Sequence[Look], *, alpha: float) -> str:
    """The confidence sequence of the risk against α, by number of audits."""
    chart = pygal.XY(**_config([BAD, CALM, GOOD, INK], HALF), show_dots=False)
    chart.x_title = "audits"
    chart.value_formatter = _percent
    chart.x_value_formatter = lambda value: f"{value:.0f}"
    chart.range = (0, min(1.0, max(4 * alpha, looks[-1].high * 1.2)))
    top = chart.range[1]
    chart.add("upper", [(look.audits, min(look.high, top)) for look in looks])
    chart.add("observed", [(look.audits, min(look.differing, top)) for look in looks])
    chart.add("lower", [(look.audits, min(look.low, top)) for look in looks])
    ends = (looks[0].audits, looks[-1].audits)
    chart.add("α", [(end, alpha) for end in ends], stroke_style={"dasharray": "6, 4"})
    return _uri(chart)


def draw_months(months: Sequence[tuple[str, float, float]]) -> str:
    """Per month: what the teacher would have cost, and what was spent."""
    chart = pygal.Bar(**_config([INK, GOOD], WIDE, stroke=0.4))
    chart.x_labels = [label for label, _, _ in months]
    chart.add("would have cost", [would for _, would, _ in months])
    chart.add("was spent", [spent for _, _, spent in months])
    return _uri(chart)


def _config(colors: Sequence[str], size: tuple[int, int], *, stroke: float = 2.2) -> dict[str, Any]:
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground=INK,
        foreground_strong=INK,
        foreground_subtle="#7d879b55",
        guide_stroke_color="#7d879b44",
        major_guide_stroke_color="#7d879b44",
        opacity=".85",
        colors=tuple(colors),
        font_family="system-ui, sans-serif",
        label_font_size=12,
        major_label_font_size=12,
        legend_font_size=12,
        title_font_size=12,
        stroke_width=stroke,
    )
    return {
        "style": style,
        "width": size[0],
        "height": size[1],
        "js": (),
        "truncate_label": -1,
        "legend_at_bottom_columns": len(colors),
        "legend_at_bottom": True,
        "legend_box_size": 10,
        "margin": 8,
        "show_y_guides": True,
        "show_x_guides": False,
    }


def _percent(share: float) -> str:
    return f"{share:.0%}" if share in (0, 1) or share >= 0.1 else f"{share:.1%}"


def _uri(chart: Any) -> str:
    chart.add_xml_filter(_without_script)
    return str(chart.render_data_uri())


def _without_script(picture: Any) -> Any:
    """pygal writes a script into each chart; a picture never runs it, and nobody need wonder whether it does."""
    for parent in list(picture.iter()):
        for child in list(parent):
            if str(child.tag).rpartition("}")[2] == "script":
                parent.remove(child)
    return picture
