"""Pieces of a plot as SVG text: what the plots of the studies are drawn with."""

from __future__ import annotations

from html import escape


def opened(width: int, height: int, title: str) -> list[str]:
    """The first lines of a plot on white, which reads on light and dark pages."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f"<title>{escape(title)}</title>",
    ]


def line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    """A straight line."""
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="{colour}"/>'
    )


def dot(place: tuple[float, float], colour: str, radius: float = 5) -> str:
    """A filled circle."""
    return f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius:g}" fill="{colour}"/>'


def ring(place: tuple[float, float], colour: str, radius: float = 4) -> str:
    """An open circle, white within."""
    return (
        f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius:g}" fill="#fff" '
        f'stroke="{colour}" stroke-width="2"/>'
    )


def text(x: float, y: float, words: str, anchor: str) -> str:
    """A label; ``anchor`` is start, middle or end."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{escape(words)}</text>'
    )
