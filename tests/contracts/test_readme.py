"""The README's tree names every file of the package and the tools, and no other."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tree_is_current():
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    folders: list[str] = []
    listed = set()
    for line in filter(str.strip, tree.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        del folders[depth:]
        listed.add("".join(folders) + name)
        if name.endswith("/"):
            folders.append(name)
    actual = {
        str(path.relative_to(ROOT))
        for folder in ("panomask", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert {name for name in listed if name.endswith(".py")} == actual
    assert all((ROOT / name).exists() for name in listed)
