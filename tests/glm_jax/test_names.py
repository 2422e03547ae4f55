import ast
from pathlib import Path

import glm_jax


def test_every_name_is_where_it_is_said_to_be():
    for name in glm_jax.__all__:
        assert getattr(glm_jax, name).__module__.startswith("glm_jax.")
    told = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(Path(glm_jax.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("glm_jax")
        for alias in node.names
    }
    assert told == {f"glm_jax.{home}.{name}" for name, home in glm_jax._HOMES.items()}
