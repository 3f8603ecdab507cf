"""What determines training: the pydantic sections of the base recipe. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainables.section import MAX_EPOCHS, MAX_SEED, Section

MAX_WIDTH = 2**16  # two layers of it have 17 GB of weights
MAX_REPLICAS = 2**15 - 1  # tables number them in 16 bits


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
    widths: list[Annotated[int, Field(ge=1, le=MAX_WIDTH)]] | None = Field(
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

    epochs: int = Field(8, ge=1, le=MAX_EPOCHS, description="Epochs in all; swaps lie strictly inside.")
    batch_size: int = Field(64, ge=2, description="Samples per step; the rest of an epoch that fills no batch is left out.")
    replicas: int = Field(6, ge=2, le=MAX_REPLICAS, description="Networks per family, with seeds first_seed, first_seed + 1, ...")
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


class BaseRecipe(Section):
    """Everything that determines training but the schedule."""

    data: Data = Field(default_factory=CellsData, description="The images and their splits.")
    model: Model = Field(default_factory=Model, description="The network.")
    training: Training = Field(default_factory=Training, description="Optimisation and replicas.")
