"""The prompt formats of the GLM family: from messages to special tokens and texts.

    compact   [gMASK]<sop><|user|>question<|assistant|>answer
    chatglm2  [gMASK]sop [Round 1]\\n\\n问：question\\n\\n答：answer
    chatglm3  [gMASK]sop<|user|>\\nquestion<|assistant|>\\nanswer
    glm4      [gMASK]<sop><|user|>\\nquestion<|assistant|>\\nanswer
    glm45     [gMASK]<sop><|user|>\\nquestion<|assistant|>\\n<think></think>\\nanswer

A prompt ends with `<|assistant|>` (`答：`); what follows, newline and thoughts too, the model
writes itself. In `chatglm3` and `glm4` a message's `metadata`, such as the name of the tool that is
called, stands before the newline; the other formats have no place for it. A system message is a
turn like the others, in `chatglm2` plain text before the rounds. `compact` is the form of the small
models trained here.

Sources: `build_prompt` of ChatGLM2-6B, `build_chat_input` of ChatGLM3-6B, and the chat templates
of GLM-4 and GLM-4.5.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from glm_jax.errors import InputError

Message: TypeAlias = Mapping[str, str]  # role, content, and perhaps metadata

ROLES = ("system", "user", "assistant", "observation")
ROLE_TOKENS = tuple(f"<|{role}|>" for role in ROLES)


class Special(NamedTuple):
    """A special token, by its name."""

    token: str
    written: bool = False


class Text(NamedTuple):
    """A text that is encoded by itself, and the spans of characters that the assistant wrote."""

    text: str
    written: tuple[tuple[int, int], ...] = ()


Segment: TypeAlias = Special | Text


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """How the models of one generation are prompted.

    `turns(messages, answer)` gives the segments of the messages and, with `answer`, of what calls
    for the assistant's next one. `opening`: what the model writes before its answer, in parts.
    `marks`: tokens that a text may spell, unlike the specials, if the vocabulary has them.
    """

    name: str
    specials: tuple[str, ...]  # that the vocabulary has, or is given in this order
    prefix: tuple[str, str]
    stops: tuple[str, ...]  # the first of them ends a response
    pad: str
    turns: Callable[[Sequence[Message], bool], list[Segment]]
    opening: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    template: str = ""  # the format in Jinja, for transformers

    def prompt(self, messages: Sequence[Message]) -> list[Segment]:
        """All that precedes the assistant's answer."""
        return [*map(Special, self.prefix), *self.turns(messages, True)]

    def response(self, message: Message) -> list[Segment]:
        """What the assistant writes to give this message, up to the end token."""
        texts = [
            _text(segment.text[start:end], written=True)
            for segment in self.turns([message], False)
            if isinstance(segment, Text)
            for start, end in segment.written
        ]
        return [*texts, Special(self.stops[0], written=True)]

    def dialogue(self, messages: Sequence[Message]) -> list[Segment]:
        """Prompt and response if the assistant speaks last; the messages alone if not."""
        if messages and _role(messages[-1]) == "assistant":
            return [*self.prompt(messages[:-1]), *self.response(messages[-1])]
        return [*map(Special, self.prefix), *self.turns(messages, False)]

    def answer(self, response: str) -> str:
        """The text of a response without its opening."""
        for part in self.opening:
            response = response.removeprefix(part)
        return response


def _role(message: Message) -> str:
    if not isinstance(message.get("content"), str):
        raise InputError(f"a message has the content {message.get('content')!r}, expected a text")
    if message.get("role") not in ROLES:
        raise InputError(f"a message has the role {message.get('role')!r}, expected one of {ROLES}")
    return message["role"]


def _text(text: str, written: bool) -> Text:
    return Text(text, ((0, len(text)),) if written else ())


def _by_role(turns: Iterable[tuple[Message, list[str]]], answer: bool) -> list[Segment]:
    segments: list[Segment] = []
    for message, texts in turns:
        role = _role(message)
        segments.append(Special(f"<|{role}|>"))
        segments += [_text(text, written=role == "assistant") for text in texts]
    return segments + [Special("<|assistant|>")] * answer


def _compact(messages: Sequence[Message], answer: bool) -> list[Segment]:
    return _by_role(((m, [m["content"]]) for m in messages), answer)


def _chatglm2(messages: Sequence[Message], answer: bool) -> list[Segment]:
    """One text: sentencepiece cuts it otherwise than it would cut its parts."""
    parts, written, length, rounds = [], [], 0, 0
    for message in messages:
        role, content = _role(message), message["content"]
        if role == "observation":
            raise InputError("the prompt format chatglm2 has no place for an observation")
        rounds += role == "user"
        opening = {"user": f"[Round {rounds}]\n\n问：", "assistant": "答："}.get(role, "")
        start = length + len(opening)
        if role == "assistant":
            written.append((start, start + len(content)))
        parts.append(opening + content)
        length = start + len(content) + len("\n\n")
    return [Text("\n\n".join([*parts, *["答："] * answer]), tuple(written))]


def _chatglm3(messages: Sequence[Message], answer: bool) -> list[Segment]:
    turns = ((m, [m.get("metadata", "") + "\n", m["content"]]) for m in messages)
    return _by_role(turns, answer)


def _glm4(messages: Sequence[Message], answer: bool) -> list[Segment]:
    turns = ((m, [m.get("metadata", "") + "\n" + m["content"]]) for m in messages)
    return _by_role(turns, answer)


def _glm45(messages: Sequence[Message], answer: bool) -> list[Segment]:
    """Thoughts stay only behind the last question; results in a row are one observation."""
    asked = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    turns: list[Message] = []
    for i, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "assistant":
            content = _thought_and_answer(content, thought=i > asked)
        elif role == "observation":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if turns and turns[-1]["role"] == role:
                content = turns.pop()["content"] + "\n" + content
        turns.append({"role": role, "content": content})
    return _glm4(turns, answer)


def _thought_and_answer(content: str, thought: bool) -> str:
    """`<think>why</think>\nanswer` or `answer` alone, as the models write it."""
    before, *after = content.split("</think>")
    why = before.split("<think>")[-1].strip() if thought and after else ""
    answer = (after or [before])[-1].strip()
    return f"<think>{why}</think>" + (f"\n{answer}" if answer else "")


def _template(line: str) -> str:
    return (
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>" + line + "{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% elif messages[-1].role == 'assistant' %}"
        "<|endoftext|>{% endif %}"
    )


COMPACT = PromptFormat(
    name="compact",
    specials=("<|endoftext|>", "[gMASK]", "<sop>", *ROLE_TOKENS),
    prefix=("[gMASK]", "<sop>"),
    # a model that opens the next turn by itself has ended its own
    stops=("<|endoftext|>", "<|user|>", "<|observation|>"),
    pad="<|endoftext|>",
    turns=_compact,
    template=_template(""),
)
GLM4 = replace(
    COMPACT, name="glm4", turns=_glm4, opening=("\n",), template=_template("{{ m.metadata }}\n")
)
GLM45 = replace(
    GLM4,
    name="glm45",
    turns=_glm45,
    opening=("\n", "<think></think>", "\n"),
    marks=(
        "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
        "</tool_response>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "/nothink",
    ),
    template="",
)  # fmt: skip
CHATGLM2 = PromptFormat(
    name="chatglm2",
    specials=("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"),
    prefix=("[gMASK]", "sop"),
    stops=("</s>",),
    pad="<unk>",
    turns=_chatglm2,
)
CHATGLM3 = replace(
    CHATGLM2,
    name="chatglm3",
    specials=(*CHATGLM2.specials, *ROLE_TOKENS),
    stops=("</s>", "<|user|>", "<|observation|>"),
    turns=_chatglm3,
    opening=("\n", " "),  # sentencepiece begins every text with a blank
)
FORMATS = {f.name: f for f in (COMPACT, CHATGLM2, CHATGLM3, GLM4, GLM45)}
