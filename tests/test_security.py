"""Promises of SECURITY.md that can be read off the source: no code is loaded from data, nothing is unpacked."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [p for folder in ("synface", "jobs", "benchmarks", "tools") for p in (ROOT / folder).rglob("*.py")]
#: callable -> keyword that makes it harmless, and its value; None: never
RISKY = {
    "pickle.load": None,
    "pickle.loads": None,
    "pickle.Unpickler": None,
    "yaml.load": None,
    "yaml.unsafe_load": None,
    "yaml.full_load": None,
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "eval": None,
    "exec": None,
    "os.system": None,
}
#: methods of archives that write to places which the archive names
UNPACKING = {"extractall", "unpack_archive"}


def faults(source: str) -> list[str]:
    """Risky calls of a source text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {k.arg: ast.literal_eval(k.value) for k in node.keywords if isinstance(k.value, ast.Constant)}
        if name in RISKY:
            needed = RISKY[name]
            if needed is None or keywords.get(needed[0]) is not needed[1]:
                found.append(f"{node.lineno}: {name}")
        if name.rpartition(".")[2] in UNPACKING or keywords.get("shell") is True:
            found.append(f"{node.lineno}: {name}")
    return found


def test_no_source_runs_what_data_says():
    assert {str(p.relative_to(ROOT)): bad for p in SOURCES if (bad := faults(p.read_text()))} == {}


def test_each_risk_would_be_found():
    for name, needed in RISKY.items():
        assert faults(f"{name}(x)") == [f"1: {name}"]
        if needed is not None:
            assert faults(f"{name}(x, {needed[0]}={needed[1]})") == []
            assert faults(f"{name}(x, {needed[0]}={not needed[1]})") == [f"1: {name}"]
    assert faults("archive.extractall('.')") and faults("run('ls', shell=True)")
    assert faults("yaml.safe_load(x); torch.no_grad()") == []
