"""What a language model is trained for: its data looked at, answers, conversations, a server."""

from randlora.training.language.chat import Chat
from randlora.training.language.generation import Decoding, generate
from randlora.training.language.prompts import Prompt, read_prompts
from randlora.training.language.serving import serve
from randlora.training.language.speaker import Speaker, load_speaker

__all__ = ["Chat", "Decoding", "Prompt", "Speaker", "generate", "load_speaker", "read_prompts", "serve"]
