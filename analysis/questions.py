"""The questions that are asked beside the first one, in the order of the page."""

from __future__ import annotations

from analysis import change
from analysis.agreement_question import agree
from analysis.order_question import in_which_order
from analysis.question import Question

QUESTIONS: tuple[Question, ...] = (change.after_swap, change.over_sizes, agree, in_which_order)
