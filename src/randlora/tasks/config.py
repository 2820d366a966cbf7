"""What to train and test on: the data section of a training config."""

from dataclasses import dataclass, field


@dataclass
class DataConfig:
    """Where the examples come from and which of them are used.

    Attributes:
        train: Training data: a hub data set's name, a .csv, .json, .jsonl or .parquet file, or (images) a folder
            with one folder per class.
        test: Test data, of the same kinds. None means the "test" split of the hub data set named in `train`; with
            files and folders it has to be given.
        text_column: Column with the texts (text-classification).
        image_column: Column with the images: encoded images or paths, relative to the data file's folder (image-text).
        label_column: Column with the labels: strings, whole numbers or a schema's class labels. In CSV and JSON they
            are strings as written. The classes are in the schema's order, by value where all are numbers, otherwise by
            code point.
        shots: Train on this many examples of each class, drawn by the run's seed. None means all.
        fraction: Train on this fraction (0 to 1] of each class, drawn by the run's seed. None means all.
        prompt_templates: Sentences that turn a class name into a caption, each with one {} (image-text).
        augment: Random resized crops and horizontal flips of the training images (image-text).
        max_length: Longest text in tokens, at most what the model has positions for; longer ones are cut
            (text-classification).
        class_names: What the prompts call the classes, in the order of the labels. None means the labels
            themselves, with underscores as spaces (image-text).
    """

    train: str = ""
    test: str | None = None
    text_column: str = "text"
    image_column: str = "image"
    label_column: str = "label"
    shots: int | None = None
    fraction: float | None = None
    prompt_templates: list[str] = field(default_factory=lambda: ["a photo of a {}."])
    augment: bool = True
    max_length: int = 128
    class_names: list[str] | None = None
