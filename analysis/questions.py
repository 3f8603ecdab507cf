"""The questions that are asked beside the first one, in the order of the page."""

from __future__ import annotations

from analysis import change, stitching
from analysis.agreement_question import agree
from analysis.extrapolation import extrapolation
from analysis.order_question import in_which_order
from analysis.question import Question
from analysis.stability import stability

QUESTIONS: tuple[Question, ...] = (
    change.after_swap,
    change.over_sizes,
    stitching.stitching,
    stability,
    extrapolation,
    agree,
    in_which_order,
)
