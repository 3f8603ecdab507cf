"""What is drawn of the first question, and the questions that are asked beside it, both in the order of the page."""

from __future__ import annotations

from analysis import change, stitching
from analysis.agreement_question import agree
from analysis.extrapolation import extrapolation
from analysis.moment_chart import across_the_swap
from analysis.network_map import network_map
from analysis.order_question import in_which_order
from analysis.question import Question
from analysis.stability import stability
from analysis.swap_grid import by_swap

PICTURES: tuple[Question, ...] = (by_swap, network_map, across_the_swap)
QUESTIONS: tuple[Question, ...] = (
    change.after_swap,
    change.over_sizes,
    stitching.stitching,
    stability,
    extrapolation,
    agree,
    in_which_order,
)
