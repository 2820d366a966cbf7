"""The loss landscape as a surface to turn: one HTML file that asks nothing of the network."""

import html

import plotly.graph_objects as go

from randlora.report.analysis_plots import clipped
from randlora.result import Result


def surface_page(result: Result) -> str:
    """A page with the surface of a landscape and its three runs.

    Args:
        result: Of `analyze_landscape`; what it says is escaped.
    """
    data = result.data
    losses, _ = clipped(data)
    names = [html.escape(name) for name in data["runs"]]
    x, y = zip(*data["corners"], strict=True)
    surface = go.Surface(x=data["x"], y=data["y"], z=losses, colorscale="Viridis", colorbar={"title": "loss"})
    runs = go.Scatter3d(
        x=x, y=y, z=data["corner_losses"], mode="markers+text", text=names, marker={"size": 5, "color": "black"}
    )
    figure = go.Figure([surface, runs])
    figure.update_layout(
        title=html.escape(result.title), scene={"xaxis_title": "x", "yaxis_title": "y", "zaxis_title": "loss"}
    )
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    title = html.escape(result.title)
    return page.replace("<head>", f'<head><title>{title}</title><meta name="viewport" content="width=device-width">', 1)
