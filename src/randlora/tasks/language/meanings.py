"""The E2E challenge's meaning representations as prompts."""

import re

from randlora.errors import DataError
from randlora.tasks.language.conversation import text_in

_FIELD = re.compile(r"\s*([A-Za-z][A-Za-z ]*)\[([^\[\]]*)\]\s*(?:,|$)")


def prompt_of_meaning(value: object, where: str) -> str:
    """Write a meaning representation out as the beginning of a text.

    The fields stand in their order, much as in the LoRA paper's data; two bars end them, and the text that is learned
    begins with a blank, so that its first word is one that the model knows from the middle of texts.

    Args:
        value: As `name[Alimentum], area[city centre]`.
        where: The file and row, for the message.

    Raises:
        DataError: It is something else.

    Example:
        >>> prompt_of_meaning("name[Alimentum], area[city centre]", "here")
        'name : Alimentum | area : city centre ||'
    """
    meaning = text_in(value, where)
    fields, place = [], 0
    while place < len(meaning):
        found = _FIELD.match(meaning, place)
        if found is None:
            expected = "a meaning representation, as name[Alimentum], area[city centre]"
            raise DataError(where, expected=expected, got=repr(meaning[:60]))
        fields.append(f"{found[1].strip()} : {found[2].strip()}")
        place = found.end()
    return f"{' | '.join(fields)} ||"
