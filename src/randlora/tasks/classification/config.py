"""The data sections of the classification tasks."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from randlora.errors import DataError
from randlora.tasks.config import DataConfig
from randlora.values import Flag, PositiveCount, Share

TextMetrics = Annotated[
    list[Literal["accuracy", "f1", "matthews_correlation", "pearson", "spearman"]],
    "a list of 'accuracy', 'f1', 'matthews_correlation', or of 'pearson', 'spearman', in brackets",
]


@dataclass
class ClassificationData(DataConfig):
    """Labelled examples.

    Attributes:
        subset: The hub data set's configuration, where it has several.
        label_column: Column with the labels: strings, whole numbers or a schema's class labels. In CSV and JSON they
            are strings as written. The classes are in the schema's order, by value where all are numbers, otherwise by
            code point.
        shots: Train on this many examples of each class, drawn by the run's seed. None means all.
        fraction: Train on this fraction (0 to 1] of each class, drawn by the run's seed. None means all.
    """

    subset: str | None = None
    label_column: str = "label"
    shots: PositiveCount | None = None
    fraction: Share | None = None

    def trained_classes(self, count: int) -> int:
        """How many of the data's classes are trained on, the first ones.

        Args:
            count: Classes that the data have.
        """
        return count


@dataclass
class TextData(ClassificationData):
    """Labelled texts, for text-classification.

    Attributes:
        text_column: Column with the texts.
        text_pair_column: Column with a second text, which the model reads behind the first. None means none.
        columns: Names of the columns of .csv and .tsv files that begin with a row in place of these names.
        regression: Whether the labels are numbers to predict (by mean squared error) and not classes.
        metrics: What is scored beside the loss, times 100; the first is the goal. For classes "accuracy", "f1" (of the
            second class; with more than two, the mean over all) and "matthews_correlation"; for numbers "pearson" and
            "spearman". None means accuracy, or both for numbers.
        max_length: Longest text in tokens, at most what the model has positions for; longer ones are cut.
        pooling: What the head reads: "model" is the architecture's own head, "mean" the mean of the tokens, which is
            right for sentence encoders.
        group_by_length: Make batches of texts of similar length, which wastes little time on padding.
    """

    text_column: str = "text"
    text_pair_column: str | None = None
    columns: list[str] | None = None
    regression: Flag = False
    metrics: TextMetrics | None = None
    max_length: PositiveCount = 128
    pooling: Literal["model", "mean"] = "model"
    group_by_length: Flag = False


@dataclass
class ImageData(ClassificationData):
    """Labelled images, for image-classification.

    Attributes:
        image_column: Column with the images: encoded images or paths, relative to the data file's folder.
        augment: Random resized crops and horizontal flips of the training images.
    """

    image_column: str = "image"
    augment: Flag = True


@dataclass
class ImageTextData(ImageData):
    """Labelled images whose classes have names, for image-text.

    Attributes:
        prompt_templates: Sentences that turn a class name into a caption, each with one {}.
        class_names: What the prompts call the classes, in the order of the labels. None means the labels themselves,
            with underscores as spaces.
        encoders: Which towers are adapted: "both" or "vision".
        classes: Which classes are trained on: "all", or "base", the first half of them. The test data then have rows of
            all; "accuracy" is on the base classes alone, among themselves, "accuracy_new" on the others, and
            "harmonic_mean" of both.
    """

    prompt_templates: list[str] = field(default_factory=lambda: ["a photo of a {}."])
    class_names: list[str] | None = None
    encoders: Literal["both", "vision"] = "both"
    classes: Literal["all", "base"] = "all"

    def trained_classes(self, count: int) -> int:
        """See `ClassificationData`; of an odd number of classes the middle one is a base class.

        Raises:
            DataError: With fewer than four classes a half would be a single one.
        """
        if self.classes == "all":
            return count
        if count < 4:
            raise DataError("data.classes", expected="four classes or more, for base and new ones", got=f"{count}")
        return -(-count // 2)
