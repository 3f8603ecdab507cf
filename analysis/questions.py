"""The questions that are asked beside the first one, in the order of the page."""

from __future__ import annotations

from analysis import change, learned
from analysis.question import Question

QUESTIONS: tuple[Question, ...] = (change.after_swap, change.over_sizes, learned.agree, learned.in_which_order)
