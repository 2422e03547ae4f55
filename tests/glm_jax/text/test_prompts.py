"""What each generation of models is shown, letter by letter."""

import pytest

from glm_jax.errors import InputError
from glm_jax.text.prompts import FORMATS, Special, Text

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "And?"},
]
ROUNDS = "Be brief.\n\n[Round 1]\n\n问：Hi\n\n答：Hello\n\n[Round 2]\n\n问：And?"
PROMPTS = {
    "compact": "[gMASK]<sop><|system|>Be brief.<|user|>Hi<|assistant|>Hello<|user|>And?"
    "<|assistant|>",
    "chatglm2": f"[gMASK]sop{ROUNDS}\n\n答：",
    "chatglm3": "[gMASK]sop<|system|>\nBe brief.<|user|>\nHi<|assistant|>\nHello<|user|>\nAnd?"
    "<|assistant|>",
    "glm4": "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\nHello<|user|>\nAnd?"
    "<|assistant|>",
    "glm45": "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n<think></think>\nHello"
    "<|user|>\nAnd?<|assistant|>",
}
RESPONSES = {
    "compact": "No.<|endoftext|>",
    "chatglm2": "No.</s>",
    "chatglm3": "\nNo.</s>",
    "glm4": "\nNo.<|endoftext|>",
    "glm45": "\n<think></think>\nNo.<|endoftext|>",
}


def shown(segments):
    return "".join(s.token if isinstance(s, Special) else s.text for s in segments)


def written(segments):
    """What the assistant wrote, its specials too."""
    texts = []
    for s in segments:
        if isinstance(s, Special):
            texts += [s.token] * s.written
        else:
            texts += [s.text[start:end] for start, end in s.written]
    return "".join(texts)


@pytest.mark.parametrize("name", FORMATS)
def test_prompt_and_response(name):
    form = FORMATS[name]
    assert shown(form.prompt(CHAT)) == PROMPTS[name]
    answer = {"role": "assistant", "content": "No."}
    assert shown(form.response(answer)) == RESPONSES[name] == written(form.response(answer))
    assert form.dialogue([*CHAT, answer]) == form.prompt(CHAT) + form.response(answer)
    ended = form.stops[0]
    assert written(form.dialogue([*CHAT, answer])) == (
        RESPONSES[name].replace("No.", "Hello").removesuffix(ended) + RESPONSES[name]
    )
    assert form.answer(RESPONSES[name].removesuffix(ended)) == "No."


@pytest.mark.parametrize("name", FORMATS)
def test_a_dialogue_that_waits_for_no_answer(name):
    opened = "\n\n答：" if name == "chatglm2" else "<|assistant|>"
    assert shown(FORMATS[name].dialogue(CHAT)) == PROMPTS[name].removesuffix(opened)
    assert shown(FORMATS[name].dialogue([])) == shown(map(Special, FORMATS[name].prefix))


def test_what_is_encoded_by_itself():
    """sentencepiece cuts a text and its parts differently, so borders matter."""
    assert FORMATS["chatglm2"].prompt(CHAT)[2:] == [Text(ROUNDS + "\n\n答：", ((30, 35),))]
    assert FORMATS["chatglm3"].prompt(CHAT[1:3])[2:] == [
        Special("<|user|>"), Text("\n"), Text("Hi"),
        Special("<|assistant|>"), Text("\n", ((0, 1),)), Text("Hello", ((0, 5),)),
        Special("<|assistant|>"),
    ]  # fmt: skip
    assert FORMATS["glm4"].prompt(CHAT[1:2])[2:4] == [Special("<|user|>"), Text("\nHi")]


def test_a_tool_is_called():
    call = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "metadata": "weather", "content": "{}"},
        {"role": "observation", "content": "rain"},
    ]
    expected = "<|user|>\nWeather?<|assistant|>weather\n{}<|observation|>\nrain<|assistant|>"
    assert shown(FORMATS["chatglm3"].prompt(call)[2:]) == expected
    assert shown(FORMATS["glm4"].prompt(call)[2:]) == expected
    assert written(FORMATS["glm4"].prompt(call)) == "weather\n{}"
    with pytest.raises(InputError, match="chatglm2 has no place for an observation"):
        FORMATS["chatglm2"].prompt(call)


def test_thoughts_of_glm45():
    """Thoughts are dropped once the next question is asked, and results share one role."""
    chat = [
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "<think>look</think>calls"},
        {"role": "observation", "content": "rain"},
        {"role": "observation", "content": "wind"},
    ]
    assert shown(FORMATS["glm45"].prompt(chat)[2:]) == (
        "<|user|>\n2+2<|assistant|>\n<think></think>\n4"
        "<|user|>\nWeather?<|assistant|>\n<think>look</think>\ncalls"
        "<|observation|>\n<tool_response>\nrain\n</tool_response>"
        "\n<tool_response>\nwind\n</tool_response><|assistant|>"
    )
    response = FORMATS["glm45"].response(chat[1])
    assert shown(response) == "\n<think>add</think>\n4<|endoftext|>"
    thoughtful = FORMATS["glm45"].answer(response[0].text)
    again = FORMATS["glm45"].response({"role": "assistant", "content": thoughtful})
    assert again == response
    nothing = FORMATS["glm45"].response({"role": "assistant", "content": " "})
    assert shown(nothing) == "\n<think></think><|endoftext|>"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("role", ["tool", "endoftext"])
def test_no_other_roles(name, role):
    """A role becomes a special token: it must not be any."""
    with pytest.raises(InputError, match=f"role '{role}', expected one of"):
        FORMATS[name].prompt([{"role": role, "content": "x"}])
    with pytest.raises(InputError, match=f"role '{role}', expected one of"):
        FORMATS[name].dialogue([{"role": role, "content": "x"}])
