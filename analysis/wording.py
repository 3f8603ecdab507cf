"""How counts, and the two schemes of `exchange`, are told: in sentences, captions and columns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

WITHIN = "within blocks of one control and swap epoch, lines of one control exchanged as wholes"
BETWEEN = "between controls, whose families are averaged"


@dataclass(frozen=True)
class Scheme:
    """What a scheme makes of the parts of every statement."""

    ranked: str  # of what rho is a correlation
    aligned: str  # what is taken out of values before they are compared
    pairs: str  # of what pairs Kendall's tau is counted
    left_in: str  # what the second correlation, of `rho_blocks`, leaves in
    resampled: str  # what a bootstrap draws, the outermost first
    exchanged: str  # what a permutation moves
    explained: str  # for the page, HTML


SCHEMES = {
    WITHIN: Scheme(
        "aligned ranks over families",
        "the means of the block (control and swap epoch) and of the last functions",
        "pairs of families of one block",
        "with the last functions' own effects not taken out, as those of these functions and no others",
        "controls, lines and replicas",
        "lines within controls",
        "Families that continue from the same control share its early training, so they are compared within <b>blocks</b> of one "
        "control and swap epoch; what the functions in force at the end do to spread and gap on their own is taken out of both "
        "(<b>aligned ranks</b>), since these are few functions however many families there are. Permutations exchange "
        "<b>lines</b>, the families of one control with the same functions at the end at all its swap epochs, and bootstraps "
        "resample controls, then lines, then replicas. Controls have no family to be exchanged with and only serve as points in "
        "the figures.",
    ),
    BETWEEN: Scheme(
        "ranks over controls, each the mean of its families",
        "nothing but the mean over controls",
        "pairs of controls",
        "which is the same here, since nothing is taken out",
        "controls, their families and replicas",
        "controls",
        "Families that continue from the same control share its early training, and here too few share a control and a swap epoch "
        "with others to be exchanged for them. So spread and gap are <b>averaged over the families of each control</b>, the "
        "control itself among them, and <b>controls</b>, which share nothing, are ranked and exchanged: their number is the n of "
        "every p. Bootstraps resample controls, then their families, then replicas. What the functions in force at the end do on "
        "their own is not taken out.",
    ),
}


def told(schemes: Iterable[str], part: Literal["ranked", "aligned", "pairs", "left_in", "resampled", "exchanged", "explained"]) -> str:
    """A part of each scheme in force, in order of appearance; of both where none is."""
    named = [scheme for scheme in dict.fromkeys(schemes) if scheme in SCHEMES] or list(SCHEMES)
    join = " " if part == "explained" else ", or "
    return join.join(getattr(SCHEMES[scheme], part) for scheme in named)


def counted(number: int, noun: str) -> str:
    """1 family, 2 families, 0 controls."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def near(name: str, allowed: Sequence[str]) -> str:
    """`did you mean ...? ` where one of the allowed names is close, in capitals or not."""
    known = {one.lower(): one for one in reversed(allowed)}
    found = difflib.get_close_matches(str(name).lower(), known, n=1)
    return f"did you mean {known[found[0]]!r}? " if found else ""
