"""`glm-rlhf plan`, without a compiler."""

import json

import pytest

from glm_jax.train import cli

RUN = "sft-chatglm3-6b-gpu-8x80"


def planned(capsys, *arguments):
    status = cli.main(["plan", *arguments, "--json"])
    told = capsys.readouterr()
    return status, json.loads(told.out) if told.out else told.err


def test_statuses_say_whether_it_fits(capsys):
    status, found = planned(capsys, RUN, "--device", "8x80GB")
    assert status == 0 and found["fits"] and "would_help" not in found
    assert {"hbm_used_bytes", "hbm_available_bytes", "bytes", "flops"} <= found.keys()
    status, found = planned(capsys, RUN, "--device", "8x16GB")
    assert status == 1 and not found["fits"]
    assert found["would_help"][0].keys() == {"set", "saves_bytes", "hbm_used_bytes", "chips"}


def test_searches_are_one_object(capsys):
    status, found = planned(capsys, RUN, "--device", "8x80GB", "--search")
    assert status == 0 and found["candidates"][0]["fits"]
    status, found = planned(capsys, RUN, "--device", "2x16GB", "--search")
    assert status == 1 and not any(row["fits"] for row in found["candidates"])


def test_in_words(capsys):
    assert cli.main(["plan", RUN, "--device", "8x16GB"]) == 1
    told = capsys.readouterr().out
    assert "lacks" in told and "would help: " in told and "not compiled" in told
    assert cli.main(["plan", RUN, "--device", "8x80GB", "--search"]) == 0
    assert "mesh.fsdp=8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "80"], "80GB"),
        (["--device", "4x80GB"], "a mesh of 8 devices (fsdp 8), but there are 4; fsdp 4 would do"),
        (["--device", "8x80GB", "memory.rows=4"], "splits rows 8 ways"),
        (["--device", "8x80GB", "--search", "0"], "at least 1"),
        (["--topology", "v5e:7x7", "--search"], "power of 2 of chips"),
        (["--topology", "v9:7x7"], "write a kind"),
        (["--device", "8x80GB", "model=models/gpt"], "does not begin with"),
    ],
)
def test_wrong_input_is_said_in_a_line(arguments, message, capsys):
    assert cli.main(["plan", RUN, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--device", "80GB", "--topology", "v5e-8"], ["--device"]]
)  # fmt: skip
def test_one_place_must_be_given(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", RUN, *arguments])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "--device" in error
