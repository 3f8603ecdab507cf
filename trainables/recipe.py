"""What determines a family: the pydantic sections of the base recipe and of the probes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from analysis.registry import Registry

PROBES: Registry[Callable[..., Any]] = Registry("probe", {})  # all are users' own; the built-in ones are options of `Probes`


class Section(BaseModel):
    """A part of the sweep file: typed, frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


MAX_SEED = 2**32 - 1


def _no_repeats(values: list[Any]) -> list[Any]:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise ValueError(f"{repeated[0]!r} stands twice in {values!r}")
    return values


Unique = AfterValidator(_no_repeats)


class _Data(Section):
    train_size: Annotated[int, Field(ge=4)] | None = Field(
        None, description="Training samples kept, drawn by split_seed after splitting; null keeps all. Unit: images."
    )
    val_fraction: float = Field(
        0.15,
        ge=0.0,
        lt=1.0,
        description="Share of all samples held out for validation, where the data bring no such split.",
    )
    test_fraction: float = Field(
        0.25,
        gt=0.0,
        lt=1.0,
        description="Share of all samples held out for testing, where the data bring no such split.",
    )
    split_seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the split, of the subset and of the label noise.")
    label_noise: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Share of training labels replaced by another class, drawn uniformly by split_seed.",
    )


class _OnDisk(_Data):
    root: str = Field("data", description="Folder that holds the data; relative paths start where the command runs.")
    download: bool = Field(True, description="Whether published data that are absent may be downloaded into root.")


class CellsData(_Data):
    """Generated microscopy-like images of single cells, cancer (1) against non-cancer (0)."""

    source: Literal["cells"] = Field("cells", description="The generator that comes with this package; needs no files.")
    num_images: int = Field(1600, ge=40, description="Images generated, over all splits.")
    image_size: int = Field(24, ge=12, le=128, description="Height and width in pixels.")
    num_slides: int = Field(40, ge=3, description="Slides: each has its own stain, light and focus, and lies in one split.")
    difficulty: float = Field(0.5, ge=0.0, le=1.0, description="Overlap of the two classes: 0 nearly separable, 1 the same distribution.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the generator.")


class NpzData(_OnDisk):
    """A .npz file: MedMNIST's layout ({train,val,test}_{images,labels}) or images, labels and optional groups."""

    source: Literal["npz"] = Field(description="A NumPy archive.")
    name: str = Field(description="A MedMNIST name (breastmnist, ...) or a .npz file below root, or its own path.")


class TorchvisionData(_OnDisk):
    """A torchvision classification data set."""

    source: Literal["torchvision"] = Field(description="A data set of torchvision.datasets.")
    name: str = Field(description="Class name in torchvision.datasets: CIFAR10, FashionMNIST, MNIST, PCAM, ...")


class FolderData(_Data):
    """A folder of images: path/class/image, or path/{train,val,test}/class/image."""

    source: Literal["folder"] = Field(description="Images in one folder per class.")
    path: str = Field(description="The folder; relative paths start where the command runs.")
    image_size: int = Field(32, ge=8, le=512, description="Images are resized to this height and width in pixels.")


class FunctionData(_Data):
    """A user's own data set."""

    source: Literal["function"] = Field(description="A function of the user's.")
    name: str = Field(
        description="package.module:function, which gives a dict of arrays: images (uint8 [sample, height, width] or "
        "[sample, height, width, 3]), labels (integers from 0 [sample]) and, if known, groups and class_names; or "
        "{train,val,test}_{images,labels}."
    )
    options: dict[str, Any] = Field({}, description="Keyword arguments of the function. The same ones must give the same data.")


Data = Annotated[CellsData | NpzData | TorchvisionData | FolderData | FunctionData, Field(discriminator="source")]


class Model(Section):
    """The network. Its activation comes from the schedule."""

    name: str = Field("cnn", description="mlp, cnn, a torchvision classifier (resnet18, ...), or package.module:function.")
    widths: list[Annotated[int, Field(ge=1)]] | None = Field(
        None,
        description="Units of each hidden layer (mlp) or channels of each block (cnn); null takes [64, 64] (mlp) or "
        "[8, 16, 32] (cnn). Refused for torchvision models.",
    )
    batch_norm: bool | None = Field(
        None,
        description="Batch normalisation after each convolution or hidden layer; null is true for cnn, false for mlp. "
        "Refused for torchvision models.",
    )


class Diffeo(Section):
    """Augmentation by random diffeomorphisms (Petrini et al. 2021), a field of its own for every image.

    With the cut-off c, T = T_min + (T_max - T_min) Beta(s r / (r + 1), s / (r + 1)) over the range of temperatures of c, and c likewise
    over whole numbers; s = 2 and r = 1 make both uniform.
    """

    cut_min: int = Field(2, ge=2, description="Least cut-off c; there is no law at 1.")
    cut_max: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Largest cut-off; null takes the published 15, or 2 side / pi where that is less: beyond it all warps fold.",
    )
    cut_concentration: float = Field(2.0, gt=0.0, description="s of the cut-off.")
    cut_ratio: float = Field(1.0, gt=0.0, description="r of the cut-off: above 1 favours large ones.")
    temperature_concentration: float = Field(2.0, gt=0.0, description="s of the temperature.")
    temperature_ratio: float = Field(1.0, gt=0.0, description="r of the temperature: above 1 favours large ones.")

    @model_validator(mode="after")
    def _ordered(self) -> Diffeo:
        if self.cut_max is not None and self.cut_max < self.cut_min:
            raise ValueError(f"cut_max is {self.cut_max}, below cut_min ({self.cut_min})")
        return self


class Training(Section):
    """Optimisation, the same in every family of the sweep."""

    epochs: int = Field(8, ge=1, description="Epochs in all; swaps lie strictly inside.")
    batch_size: int = Field(64, ge=2, description="Samples per step; the rest of an epoch that fills no batch is left out.")
    replicas: int = Field(6, ge=2, description="Networks per family, with seeds first_seed, first_seed + 1, ...")
    first_seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the first replica.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum, or AdamW.")
    learning_rate: float = Field(0.05, gt=0.0, description="Peak learning rate.")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Momentum of SGD; beta1 of AdamW.")
    nesterov: bool = Field(False, description="Nesterov momentum. Only with sgd and momentum above 0.")
    weight_decay: float = Field(0.0, ge=0.0, description="L2 penalty (sgd) or decoupled decay (adamw).")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "constant",
        description="Learning rate over epochs: constant, cosine to 0, or a tenth after 1/2 and 3/4 of the epochs behind the warm-up.",
    )
    warmup_epochs: int = Field(0, ge=0, description="Epochs of linear warm-up to learning_rate.")
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Largest norm of one replica's gradient; null does not clip."
    )
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="Rounding of products in training: float32; tf32, on a GPU's tensor cores; or bf16, a forward pass by autocast with "
        "weights and loss in float32. Evaluation and probes are in float32 always.",
    )
    reset_optimizer_at_swap: bool = Field(False, description="Whether a swap forgets momentum and other optimizer state.")
    flip: bool = Field(False, description="Augment by random horizontal flips.")
    shift_px: int = Field(0, ge=0, description="Augment by random shifts of up to so many pixels, zero padded.")
    diffeo: Diffeo | None = Field(None, description="Augment by random diffeomorphisms: {} for the defaults; null does not.")

    @model_validator(mode="after")
    def _effective(self) -> Training:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov has no effect without optimizer sgd and a momentum above 0")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}, which must lie below epochs ({self.epochs})")
        return self


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


class BaseRecipe(Section):
    """Everything that determines training but the schedule."""

    data: Data = Field(default_factory=CellsData, description="The images and their splits.")
    model: Model = Field(default_factory=Model, description="The network.")
    training: Training = Field(default_factory=Training, description="Optimisation and replicas.")
