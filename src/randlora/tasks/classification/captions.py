"""What captions say: the names of the classes, and sentences around them."""

from collections.abc import Sequence

from randlora.errors import DataError
from randlora.tasks.classification.config import ImageTextData


def captions(data: ImageTextData, label_names: Sequence[str]) -> list[str]:
    """All templates of the first class, then of the second, and so on; for errors see `names_of`.

    Args:
        data: The data section of the config.
        label_names: Names of the classes, in the order of their numbers.
    """
    names = names_of(data, label_names)
    return [template.replace("{}", name) for name in names for template in data.prompt_templates]


def names_of(data: ImageTextData, label_names: Sequence[str]) -> list[str]:
    """What captions call the classes.

    Args:
        data: The data section of the config.
        label_names: Names of the classes, in the order of their numbers.

    Raises:
        DataError: `data.class_names` are not as many as the labels, blank, not all different, or the labels themselves
            in another order.
    """
    plain = [name.replace("_", " ") for name in label_names]
    names = data.class_names or plain
    if len(names) != len(plain):
        raise DataError("data.class_names", expected=f"{len(plain)} names, one per label", got=str(len(names)))
    if not all(name.strip() for name in names):
        raise DataError("data.class_names", expected="words for each label", got="a blank name")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError("data.class_names", expected="a name of its own for each label", got=f"'{twice}' twice")
    if sorted(names) in (sorted(plain), sorted(label_names)) and names not in (plain, list(label_names)):
        raise DataError(
            "data.class_names",
            expected=f"the order of the labels, {', '.join(label_names)}",
            got=", ".join(names),
            hint="these are the labels' own names, in another order",
        )
    return names
