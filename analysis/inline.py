"""Parts of an SVG that matplotlib drew, as elements of a page.

What matplotlib writes is a file of its own: a style sheet for every element of the document, ids that another drawing has too, fonts by
name, and every colour twice as long as it need be. A part has ids that no other part of the page has, the page's font, and its colours as
attributes, which page/chart.css translates to the colours of light, dark and paper; a viewer without that sheet shows them as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from matplotlib.transforms import Bbox

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_LONG = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"#([^)]+)")
_PX_PER_PT = 4 / 3
_OWN_STYLE = ("font-size", "font-weight", "font-style")  # a style sheet's `svg text` outranks them as attributes
_NUMBERS = ("d", "x", "y", "width", "height")


@dataclass(frozen=True)
class Part:
    """Groups of the drawing by their ids, and the box around them in points from the lower left corner."""

    ids: Sequence[str]
    box: Bbox
    label: str
    css: str = "plot"


def parts(svg: bytes, wanted: Sequence[Part], prefix: str) -> list[str]:
    """Each part as an `<svg>` element that needs nothing outside it. `prefix` is what no other drawing of the page has."""
    root = ElementTree.fromstring(svg)
    height = float(root.attrib["viewBox"].split()[3])
    known = {element.attrib["id"]: element for element in root.iter() if "id" in element.attrib}
    return [_Writer(known, f"{prefix}-{index}-").element(part, height) for index, part in enumerate(wanted)]


class _Writer:
    """One part: its groups, and before them the definitions that they refer to, under names of their own."""

    def __init__(self, known: dict[str, Element], prefix: str) -> None:
        self._known, self._prefix = known, prefix
        self._names: dict[str, str] = {}

    def element(self, part: Part, height: float) -> str:
        box, written = part.box, 0
        body = "".join(self._text(self._known[name]) for name in part.ids if name in self._known)
        definitions: list[str] = []
        while written < len(self._names):  # a definition may refer to another
            name = list(self._names)[written]
            definitions.append(self._text(self._known[name], self._names[name]))
            written += 1
        before = f"<defs>{''.join(definitions)}</defs>" if definitions else ""
        width_px, height_px = (math.ceil(length * _PX_PER_PT) for length in (box.width, box.height))
        return (
            f'<svg class="{part.css}" viewBox="{box.x0:.1f} {height - box.y1:.1f} {box.width:.1f} {box.height:.1f}" width="{width_px}" '
            f'height="{height_px}" role="img" aria-label="{escape(part.label)}" fill="#000000" stroke-linejoin="round">'
            f"{before}{body}</svg>"
        )

    def _text(self, element: Element, name: str = "") -> str:
        tag = str(element.tag).removeprefix(_SVG)
        if tag == "defs":
            return ""  # those that are referred to stand before the groups
        inside = "".join(map(self._text, element))
        if tag in ("text", "tspan"):
            inside = escape(element.text or "", quote=False) + inside
        attributes = self._attributes(element, tag) | ({"id": name} if name else {})
        if tag == "g" and not (attributes and inside):
            return inside
        said = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
        return f"<{tag}{said}>{inside}</{tag}>" if inside else f"<{tag}{said}/>"

    def _attributes(self, element: Element, tag: str) -> dict[str, str]:
        found = {"href" if key == _LINK else key: value for key, value in element.attrib.items() if key != "id"}
        said = (one.partition(":") for one in found.pop("style", "").split(";") if one.strip())
        style = {key.strip(): value.strip() for key, _, value in said}  # of one said twice the last counts, as in a style sheet
        style.pop("font-family", None)
        own = ";".join(f"{key}:{style.pop(key)}" for key in _OWN_STYLE if key in style)
        if tag == "text":
            found = {"fill": "#000000"} | found
        found |= style | ({"style": own} if own else {})
        for key in _NUMBERS:
            if key in found:
                found[key] = _LONG.sub(lambda number: f"{float(number[0]):.2f}", " ".join(found[key].split()))
        if re.match(r"rotate\(-?0 ", found.get("transform", "")):
            del found["transform"]
        return {key: self._renamed(value) if "#" in value and not value.startswith("data:") else value for key, value in found.items()}

    def _renamed(self, value: str) -> str:
        """A reference under the name that its definition has here; a colour is none."""
        reference = _REFERENCE.search(value)
        if reference is None or reference[1] not in self._known:
            return value
        name = self._names.setdefault(reference[1], f"{self._prefix}{len(self._names)}")
        return value.replace(f"#{reference[1]}", f"#{name}")
