"""What is recorded of networks: the pydantic sections of the probes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from analysis.registry import Registry
from trainables.section import MAX_SEED, Section, Unique

PROBES: Registry[Callable[..., Any]] = Registry("probe", {})  # all are users' own; the built-in ones are options of `Probes`

Baseline = Literal["calibration", "disagreement", "margins", "norms", "distance", "sharpness", "participation_ratio", "separability"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
UNNAMED_DIRECTIONS = 4  # of sharpness in families whose names say nothing of them


def _baselines(value: Any) -> Any:
    """True and false as lists, and lists in one order, so that what is the same has one name."""
    if isinstance(value, bool):
        return list(BASELINES) if value else []
    known = isinstance(value, list) and all(name in BASELINES for name in value)
    return sorted(value, key=BASELINES.index) if known else value


class Stitching(Section):
    """Networks made of the lower part of one replica and the upper part of another: how much worse they are."""

    layers: Annotated[list[str], Unique, Field(min_length=1)] | None = Field(
        None, description="Parts of the network after which it is cut; null takes its main blocks, the head aside."
    )
    steps: int = Field(50, ge=0, description="Steps of training of the map in between, from its least-squares fit; 0 leaves it at that.")
    learning_rate: float = Field(0.001, gt=0.0, description="Learning rate of these steps (Adam).")
    pairs: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Ordered pairs of different replicas that are stitched, drawn by seed; null takes all."
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the training batches and of the choice of pairs.")


class Warp(Section):
    """A law of random diffeomorphisms: its cut-off, and how far it moves pixels."""

    cut: int = Field(3, ge=2, description="Cut-off c: modes of frequency up to about c in each direction.")
    displacement_px: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Nominal displacement delta in pixels; null takes 1, or that of temperature."
    )
    temperature: Annotated[float, Field(gt=0.0)] | None = Field(None, description="Temperature T, instead of displacement_px.")

    @model_validator(mode="after")
    def _one_scale(self) -> Warp:
        if self.displacement_px is not None and self.temperature is not None:
            raise ValueError("displacement_px and temperature say the same thing twice; give one of them")
        return self


class Stability(Section):
    """Relative stability to diffeomorphisms: how outputs and layers change on warped images, and on images with noise as large."""

    warps: Annotated[list[Warp], Unique, Field(min_length=1)] = Field(
        [Warp()], description="The laws of the warps; the default is the published c = 3 and one pixel."
    )
    mask: Literal["published", "disc"] = Field(
        "published", description="Modes kept: i^2 + j^2 < (c + 1/2)^2, as the paper's code does, or at most c^2, as its text says."
    )
    interpolation: Literal["linear", "gaussian"] = Field("linear", description="How warped images are read between pixels.")
    reject_folded: bool = Field(False, description="Draw fields that fold again; else they are used and counted.")
    pooling: Literal["flatten", "mean"] = Field(
        "flatten", description="What of a layer's map is compared: all of it, or its mean over positions. The output is compared whole."
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the warps and of the noise, the same for every network.")


class Hull(Section):
    """Test samples relative to the convex hull of training samples, in pixels and in layers, before each swap and at the end."""

    layers: Annotated[list[str], Unique, Field(min_length=1)] | None = Field(
        None, description="Layers whose features are looked at, by module name; null takes those whose activations are recorded."
    )
    pooling: Literal["flatten", "mean"] = Field(
        "flatten",
        description="How a map becomes a point: flatten, as the rest of the network takes it, or mean over positions, of which the rest "
        "of the network predicts nothing.",
    )
    train_size: Annotated[int, Field(ge=2)] | None = Field(
        2000, description="Training samples that span a layer's hull, the same for every network; null takes all. Unit: images."
    )
    null_samples: int = Field(100, ge=1, description="Draws of the Gaussian null beside the probe samples.")
    pixel_queries: Literal["probe", "test"] = Field(
        "probe",
        description="Images that are projected onto the hull of all training images, once per data set: the probe samples, or the whole "
        "test split.",
    )


class Probes(Section):
    """What is recorded. Does not influence training."""

    num_samples: int = Field(100, ge=4, description="Probe samples: so many of the test split, the same for every network.")
    layers: Annotated[list[str], Unique, Field(min_length=1)] | None = Field(
        None,
        description="Layers whose outputs are recorded, by module name; null takes the model's main blocks and its head.",
    )
    pooling: Literal["mean", "flatten", "positions"] = Field(
        "mean",
        description="How a map [channel, height, width] becomes rows: mean over positions, flattened, or one row per position (nhw x c).",
    )
    moments: Annotated[list[Literal["init", "before_swap", "after_swap", "end"]], Unique] = Field(
        min_length=1, default=["init", "before_swap", "after_swap", "end"], description="When activations are recorded."
    )
    epochs: Annotated[list[Annotated[int, Field(ge=0)]], Unique] = Field(
        [], description="Further epochs at whose end activations are recorded (moment `epoch`), of those that evaluate_every evaluates."
    )
    evaluate_every: int = Field(
        1,
        ge=1,
        description="Epochs between evaluations (tables epochs, predictions); the start, both sides of a swap and the end have one, too.",
    )
    predictions: bool = Field(True, description="Record the predicted class of every train and test sample at every evaluation.")
    baselines: Annotated[list[Baseline], Unique, BeforeValidator(_baselines)] = Field(
        [*BASELINES],
        description="Other predictors of the generalization gap, recorded at the end of training: true for all, false for none, or a list.",
    )
    sharpness_directions: int = Field(
        2, ge=1, description="Random perturbations of each size that the baseline sharpness averages over; more are dearer, and less noisy."
    )
    stitching: Stitching | None = Field(
        None, description="Stitch replicas to each other at the end of training: {} for the defaults; null does not. Costs much time."
    )

    stability: Stability | None = Field(
        None,
        description="Relative stability to diffeomorphisms, on the probe samples, in the layers and at the moments where activations are "
        "recorded: {} for the defaults; null does not.",
    )

    hull: Hull | None = Field(
        None,
        description="Locate probe samples relative to the hull of training samples before swaps and at the end: {} for the defaults; null "
        "does not. Costs 0.1 to 2 s per replica, layer and moment (32 to 1,568 features).",
    )

    own: Annotated[list[str], Unique] = Field(
        [],
        description="Your own probes, as package.module:function, at the same moments and epochs: each is given a "
        "trainables.probes.Look and gives a dict of quantities, one number per replica each (table measurements).",
    )

    @property
    def key(self) -> dict[str, Any]:
        """What of this goes into a family's name: what differs from recording nothing at the end, and from the other defaults.

        So a family is not taken for one whose tables lack what an option added since records.
        """
        key = self.model_dump(mode="json", exclude_defaults=True, exclude={"baselines", "sharpness_directions", "own"}) | self.sources
        if self.baselines:
            key["baselines"] = self.baselines
        if "sharpness" in self.baselines and self.sharpness_directions != UNNAMED_DIRECTIONS:
            key["sharpness_directions"] = self.sharpness_directions
        return key

    @property
    def on_the_way(self) -> dict[str, Any]:
        """What of this decides what is recorded before the end of training."""
        at_the_end = {"baselines", "sharpness_directions", "stitching"}
        # Options that may be null are left out then, so that states from before there were such options stay usable.
        unused = {name for name in ("stability", "hull") if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=at_the_end | unused | {"own"}) | self.sources

    @property
    def sources(self) -> dict[str, list[str]]:
        """The user's own probes with hashes of their sources; nothing where there are none, so that all else is told as ever."""
        return {"own": [PROBES.fingerprint(name) for name in self.own]} if self.own else {}
