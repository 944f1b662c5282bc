"""A page's sections as Markdown, for results that are kept in a repository."""

from collections.abc import Sequence

from synface.report.parts import Drawn, Section, Table

#: what stands below this line was written by hand, and stays when a page is written anew
BY_HAND = "<!-- Below: written by hand; kept when this page is written anew. -->"


def page(title: str, lead: str, parts: Sequence[Section], folder: str, by_hand: str) -> str:
    """One Markdown page.

    Args:
        title: its heading.
        lead: Markdown below the heading.
        parts: the sections of a report.
        folder: where the figures' files stand, as seen from the page.
        by_hand: Markdown at the end.
    """
    blocks = [f"# {title}", lead]
    for part in parts:
        blocks += [f"## {part.title}", *([part.lead] if part.lead else [])]
        for name, rows in part.tables:
            blocks += [*([f"### {name}"] if name else []), table(rows)]
        blocks += [block for drawn in part.drawn for block in figure(drawn, folder)]
    return "\n\n".join([*blocks, BY_HAND, by_hand.strip()]).rstrip() + "\n"


def table(content: Table) -> str:
    """A table of GitHub's Markdown; rows that stand out are bold. Header cells over spans of columns are left out."""
    lines = [_line(content.header), "|" + "---|" * len(content.header)]
    for number, row in enumerate(content.rows):
        lines.append(_line([f"**{c}**" if c and number in content.strong else c for c in row]))
    return "\n".join(lines)


def figure(drawn: Drawn, folder: str) -> list[str]:
    """The picture, its caption and its files."""
    links = " ".join(f"[{suffix.upper()}]({folder}/{drawn.name}.{suffix})" for suffix in suffixes(drawn))
    return [f"![{_cell(drawn.alt)}]({folder}/{drawn.name}.png)", f"*{drawn.caption}* {links}"]


def suffixes(drawn: Drawn) -> tuple[str, ...]:
    """Files of a figure. Grids of photographs have no SVG: it would hold the same pixels again, and larger."""
    pictured = any(ax.images for ax in drawn.figure.axes)
    return ("png", "csv") if pictured else ("png", "svg", "csv")


def by_hand(page: str) -> str:
    """What was written by hand on a page that stands; empty where nothing was."""
    return page.partition(BY_HAND)[2].strip()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(c) for c in cells) + " |"


def _cell(text: str) -> str:
    """Text inside a table: no line breaks, no bars, no tags."""
    plain = text.replace("\n", " ").replace("\\", "\\\\").replace("|", "\\|")
    return plain.replace("<", "&lt;").replace(">", "&gt;")
