"""The questions that are asked beside the first one, in the order of the page."""

from __future__ import annotations

from analysis import change, stitching
from analysis.extrapolation import extrapolation
from analysis.question import Question
from analysis.stability import stability

QUESTIONS: tuple[Question, ...] = (change.after_swap, change.over_sizes, stitching.stitching, stability, extrapolation)
