"""Language models: generate, chat, serve."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randlora.cli.commands.needs import add_trust, require
from randlora.errors import OutputError
from randlora.files import expanded

if TYPE_CHECKING:
    from randlora.training.language import Decoding, Prompt

_SOURCE = "a run's folder, an adapter folder, or a model: folder, GGUF file, package:NAME/PATH, hub id"


def add_to(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands."""
    parser = actions.add_parser(
        "generate",
        help="answer prompts with a trained language model",
        epilog="Prompts are words, the lines of --file, or those of standard input. One prompt given as a word is "
        "answered in plain text, and others as lines of JSON with prompt and completion.",
        allow_abbrev=False,
    )
    parser.add_argument("source", help=_SOURCE)
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="prompts")
    parser.add_argument("--file", help="a prompt in each line, or .jsonl with prompt or messages in each")
    parser.add_argument("--output", help="a new file for the lines of JSON, instead of standard output")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts answered together (8)")
    parser.add_argument("--raw", action="store_true", help="go on from the prompt as it is, without chat template")
    _add_decoding(parser)
    parser.set_defaults(call=generate, takes_words="prompts", interrupted="interrupted")

    parser = actions.add_parser("chat", help="talk to a trained language model", allow_abbrev=False)
    parser.add_argument("source", help=_SOURCE)
    _add_decoding(parser)
    parser.set_defaults(call=chat, interrupted="interrupted")

    parser = actions.add_parser(
        "serve", help="serve a trained language model with an OpenAI-compatible server", allow_abbrev=False
    )
    parser.add_argument("source", help=_SOURCE)
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument(
        "--engine",
        choices=("auto", "transformers", "vllm"),
        default="auto",
        help="whose server: vLLM's, transformers' own, or (auto) vLLM's where it is installed",
    )
    _add_model(parser)
    parser.set_defaults(call=serve, interrupted="interrupted")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="where the base model is, if not where training had it")
    add_trust(parser)


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", help="system message")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="tokens of an answer at most (256)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token, more draws (0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="share of probability that is drawn from (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (0)")
    _add_model(parser)


def _decoding(arguments: argparse.Namespace) -> "Decoding":
    require("pydantic", "datasets")
    from randlora.training.language import Decoding

    return Decoding(arguments.max_new_tokens, arguments.temperature, arguments.top_p, arguments.seed)


def generate(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora generate SOURCE [PROMPT…]`."""
    decoding = _decoding(arguments)
    from tqdm import tqdm

    from randlora.files import write_atomically
    from randlora.training.language import load_speaker, read_prompts
    from randlora.training.language.generation import check_batch_size
    from randlora.training.language.generation import generate as answers_to
    from randlora.training.language.prompts import token_ids

    check_batch_size(arguments.batch_size)
    output = None if arguments.output is None else _new_file(arguments.output)
    prompts = read_prompts(arguments.prompts, arguments.file, () if sys.stdin.isatty() else sys.stdin)
    speaker = load_speaker(arguments.source, arguments.model, trust_remote_code=arguments.trust_remote_code)
    options = {"system": arguments.system, "raw": arguments.raw}
    ids = [token_ids(speaker, prompt, f"prompt {n}", **options) for n, prompt in enumerate(prompts, start=1)]
    with tqdm(total=len(ids), unit="prompt", disable=len(ids) <= arguments.batch_size) as bar:
        answers = answers_to(speaker, ids, decoding, batch_size=arguments.batch_size, advance=bar.update)
    if output is None and len(arguments.prompts) == 1:
        print(answers[0])
        return 0
    lines = "".join(f"{_row(prompt, answer)}\n" for prompt, answer in zip(prompts, answers, strict=True))
    if output is None:
        print(lines, end="")
    else:
        write_atomically(output, lines)
        print(f"{len(answers):,} answers written to {output}")
    return 0


def _row(prompt: "Prompt", answer: str) -> str:
    asked = prompt if isinstance(prompt, str) else prompt.messages
    return json.dumps({"prompt": asked, "completion": answer}, ensure_ascii=False)


def _new_file(name: str) -> Path:
    path = expanded(name)
    if path.exists() or path.is_symlink():
        raise OutputError("--output", expected="a new file", got=f"{name}, which is there already")
    if not path.parent.is_dir():
        raise OutputError("--output", expected="a file in a folder that exists", got=name)
    return path


def chat(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora chat SOURCE`."""
    decoding = _decoding(arguments)
    from randlora.cli.commands.terminal import typed_lines
    from randlora.training.language import Chat, load_speaker
    from randlora.training.language.chat import HELP

    def write(text: str) -> None:
        print(text, end="", flush=True)

    speaker = load_speaker(arguments.source, arguments.model, trust_remote_code=arguments.trust_remote_code)
    conversation = Chat(speaker, decoding, write, arguments.system)
    if sys.stdin.isatty():
        print(HELP)
    conversation.run(typed_lines(HELP))
    return 0


def serve(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora serve SOURCE`."""
    require("pydantic", "datasets")
    from randlora.training.language import serve as run_server
    from randlora.training.language.engines import choose_engine
    from randlora.training.language.server import check_address

    engine = choose_engine(arguments.engine)
    check_address(arguments.host, arguments.port)

    run_server(
        arguments.source,
        engine,
        host=arguments.host,
        port=arguments.port,
        model=arguments.model,
        trust_remote_code=arguments.trust_remote_code,
    )
    return 0
