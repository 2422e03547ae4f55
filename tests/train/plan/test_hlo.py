"""What a program sends, read off the compiler's text."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from glm_jax.train.plan.flops import Rounds
from glm_jax.train.plan.hlo import collectives, size

# a loop of 3 rounds around another of 5, and decoding's loop, whose end is not known
TEXT = """HloModule step

%inner_condition (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%inner_body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = bf16[4,8]{1,0} all-gather(%x), channel_id=1, dimensions={0}
  ROOT %t = (s32[], f32[8]) tuple(%i, %x)
}

%outer_condition (p: (s32[], f32[8])) -> pred[] {
  %n = s32[] constant(3)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%outer_body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w = (s32[], f32[8]) while(%p), condition=%inner_condition, body=%inner_body
  ROOT %r = f32[8]{0} all-reduce-start(%x), channel_id=2, to_apply=%add
}

%some_live (p: (s32[], f32[8])) -> pred[] {
  ROOT %any = pred[] all-reduce(%x), channel_id=3, to_apply=%or
}

%token (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %f = f32[2,4]{1,0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[8]) tuple(%i, %x)
}

%fused (x: f32[2,4]) -> f32[2,4] {
  %a = (f32[2,4]{1,0}, bf16[3]{0}) all-to-all(%x, %y), channel_id=4
  %b = (f32[2,4]{1,0}, bf16[3]{0}) all-to-all(%x, %y), channel_id=4
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%x), condition=%outer_condition, body=%outer_body
  %d = (s32[], f32[8]) while(%x), condition=%some_live, body=%token, DECODING
  ROOT %out = f32[8] get-tuple-element(%d), index=1
}
""".replace("DECODING", 'metadata={op_name="jit(step)/generate/decode/while"}')


def test_loops_are_counted_and_pieces_are_not():
    found = {c.kind: c for c in collectives(TEXT, Rounds(tokens=100)) if c.result != "pred[]"}
    assert {kind: c.times for kind, c in found.items()} == {
        "all-gather": 15, "all-reduce": 3, "all-to-all": 100,
    }  # fmt: skip
    assert {kind: c.decoding for kind, c in found.items()} == {
        "all-gather": False, "all-reduce": False, "all-to-all": True,
    }  # fmt: skip
    assert found["all-gather"].bytes == 15 * 4 * 8 * 2
    assert found["all-to-all"].bytes == 100 * (2 * 4 * 4 + 3 * 2)
    (end,) = (c for c in collectives(TEXT, Rounds(tokens=100)) if c.result == "pred[]")
    assert end.decoding and end.times == 100


def test_sizes():
    assert size("(f32[2,3]{1,0:T(8,128)}, bf16[4], pred[])") == 24 + 8 + 1


def test_a_compiled_program():
    """Eight CPU devices, a sum over the split axis in each of four rounds."""
    mesh = jax.make_mesh((8,), ("x",), (AxisType.Auto,))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["x"], []))

    def body(x, _):
        return x + jax.lax.with_sharding_constraint(jnp.sum(x, axis=0), whole)[None], None

    program = jax.jit(lambda x: jax.lax.scan(body, x, length=4)[0], in_shardings=split)
    text = program.lower(np.ones((16, 4), np.float32)).compile().as_text()
    sent = [c for c in collectives(text, Rounds()) if c.kind == "all-reduce"]
    assert sum(c.bytes for c in sent) == 4 * 4 * 4
